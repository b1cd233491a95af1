package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"

	"github.com/quorate/quorate/fsm"
)

// maxRead is how much of a body or a file is matched.
const maxRead = 64 << 10

// compile makes a pattern; nil if there is none.
func compile(match string) (*regexp.Regexp, error) {
	if match == "" {
		return nil, nil
	}
	re, err := regexp.Compile(match)
	if err != nil {
		return nil, fmt.Errorf("match %q: %w", match, err)
	}
	return re, nil
}

// httpProbe asks for a page. Redirects are an answer like any other: following them
// would check another service.
func httpProbe(c fsm.HTTPCheck) (probe, error) {
	match, err := compile(c.Match)
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(c.URL)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, fmt.Errorf("url %q: want http://host/path or https://host/path", c.URL)
	}
	return func(ctx context.Context) error {
		config, err := tlsConfig(c)
		if err != nil {
			return err
		}
		transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxRead}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
		if err != nil {
			return err
		}
		request.Host = c.Host // empty: of the URL
		request.Header.Set("User-Agent", "quorate")
		if password, ok := at.User.Password(); ok {
			request.SetBasicAuth(at.User.Username(), password)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return netError(ctx, err)
		}
		defer response.Body.Close()
		return judge(ctx, c, match, response)
	}, nil
}

// judge says whether an answer is the one that is wanted.
func judge(ctx context.Context, c fsm.HTTPCheck, match *regexp.Regexp, r *http.Response) error {
	if r.StatusCode < c.StatusMin || r.StatusCode > c.StatusMax {
		want := fmt.Sprint(c.StatusMin)
		if c.StatusMax != c.StatusMin {
			want = fmt.Sprintf("%d to %d", c.StatusMin, c.StatusMax)
		}
		if to := r.Header.Get("Location"); to != "" {
			return fmt.Errorf("status %d, want %s: it redirects to %s, which is not followed", r.StatusCode, want, to)
		}
		return fmt.Errorf("status %d, want %s", r.StatusCode, want)
	}
	if match == nil {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRead))
	if err != nil {
		return fmt.Errorf("after %d bytes of the body: %w", len(body), netError(ctx, err))
	}
	if !match.Match(body) {
		return fmt.Errorf("the body does not match %q: %d bytes were read", c.Match, len(body))
	}
	return nil
}

// tlsConfig reads the certificates to trust each time, so that a new file is used.
func tlsConfig(c fsm.HTTPCheck) (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: c.Insecure, MinVersion: tls.VersionTLS12}
	if c.Host != "" {
		config.ServerName = c.Host
		if host, _, err := net.SplitHostPort(c.Host); err == nil {
			config.ServerName = host
		}
	}
	if c.CA == "" {
		return config, nil
	}
	b, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("ca: %s holds no certificate in PEM form", c.CA)
	}
	return config, nil
}

// tcpProbe connects, and hangs up.
func tcpProbe(address string) probe {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return netError(ctx, err)
		}
		return conn.Close()
	}
}

// errTimeout is the reason of a run that was cut off while it waited for the network.
var errTimeout = errors.New("no answer in time")

// netError says what the network said, or that it said nothing in time.
func netError(ctx context.Context, err error) error {
	if timeout := net.Error(nil); ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout() {
		return errTimeout
	}
	return err
}
