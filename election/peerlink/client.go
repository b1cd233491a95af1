package peerlink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// How long each call may take. The caller's context may end it earlier.
const (
	helloTimeout    = time.Second
	pledgeTimeout   = 2 * time.Second
	campaignTimeout = time.Second
	proposeTimeout  = 10 * time.Second // a commit on a busy disk took up to 0.3 s
	joinTimeout     = 10 * time.Second
	validateTimeout = 3 * time.Second
	doctorTimeout   = 14 * time.Second // below the server's time for writing an answer
	tryTimeout      = doctorTimeout
)

// A Peer is whom to call.
type Peer struct {
	Address  netip.AddrPort
	Instance fsm.InstanceID // refuse another one at that address; zero: any
}

// A Client calls other nodes. It keeps connections open between calls. Its methods
// may be called concurrently; their errors are *Refused, *RemoteError, or of the
// network.
type Client struct {
	link *Link
	http *http.Client
}

func newClient(l *Link) *Client {
	return &Client{link: l, http: &http.Client{
		Transport: &http.Transport{
			// No Proxy: nodes talk directly, whatever the environment says.
			DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				to, err := netip.ParseAddrPort(addr)
				if err != nil {
					return nil, err
				}
				conn, err := l.dial(ctx, to, ProtocolRPC, nil)
				if err != nil {
					return nil, err
				}
				return conn, nil
			},
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        30 * time.Second, // below the server's, so that it is we who close
			MaxResponseHeaderBytes: 8 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Hello asks a node who it is.
func (c *Client) Hello(ctx context.Context, to Peer) (election.Hello, error) {
	var reply election.Hello
	err := c.call(ctx, to, pathHello, helloTimeout, struct{}{}, &reply)
	return reply, err
}

// Pledge asks a node to take part in a formation; nil means that its word is given
// and on its disk.
func (c *Client) Pledge(ctx context.Context, to Peer, p election.Pledge) error {
	return c.call(ctx, to, pathPledge, pledgeTimeout, p, &struct{}{})
}

// Propose hands an encoded fsm.Command to the leader. On a *RemoteError the command
// changed nothing, except when its code is timeout or failed: then, as after an
// error of the network, it may yet be applied.
func (c *Client) Propose(ctx context.Context, to Peer, command []byte) (Proposed, error) {
	var reply Proposed
	err := c.call(ctx, to, pathPropose, proposeTimeout, json.RawMessage(command), &reply)
	return reply, err
}

// Campaign asks a node to become leader now.
func (c *Client) Campaign(ctx context.Context, to Peer) error {
	return c.call(ctx, to, pathCampaign, campaignTimeout, struct{}{}, &struct{}{})
}

// Join asks the leader to add a node.
func (c *Client) Join(ctx context.Context, to Peer, node fsm.Node) error {
	return c.call(ctx, to, pathJoin, joinTimeout, node, &struct{}{})
}

// Validate asks a node what it has against a document. A node of a version that does
// not know a part of it answers with a *RemoteError.
func (c *Client) Validate(ctx context.Context, to Peer, d fsm.Document) (Validation, error) {
	var reply Validation
	err := c.call(ctx, to, pathValidate, validateTimeout, d, &reply)
	return reply, err
}

// Doctor asks a node to take part in a survey, and returns its answer when that is over;
// ctx bounds it. A node of a version without a doctor answers with a *RemoteError.
func (c *Client) Doctor(ctx context.Context, to Peer, question json.RawMessage) (json.RawMessage, error) {
	var reply json.RawMessage
	err := c.call(ctx, to, pathDoctor, doctorTimeout, question, &reply)
	return reply, err
}

// Try asks a node for its part in a fault on purpose, and returns its answer; ctx bounds
// it. A node of a version without that answers with a *RemoteError.
func (c *Client) Try(ctx context.Context, to Peer, question json.RawMessage) (json.RawMessage, error) {
	var reply json.RawMessage
	err := c.call(ctx, to, pathTry, tryTimeout, question, &reply)
	return reply, err
}

func (c *Client) call(ctx context.Context, to Peer, path string, timeout time.Duration, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("call %s of node %s: encode: %w", path, to.Address, err)
	}
	if len(body) > maxBody {
		return fmt.Errorf("call %s of node %s: the request has %d bytes, at most %d can be sent", path, to.Address, len(body), maxBody)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+to.Address.String()+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call %s of node %s: %w", path, to.Address, err)
	}
	id := c.link.cfg.Identity()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(headerCluster, url.QueryEscape(id.Cluster))
	r.Header.Set(headerClusterID, id.ClusterID.String())
	r.Header.Set(headerInstance, id.Instance.String())
	r.Header.Set(headerExpect, to.Instance.String())
	resp, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("call %s of node %s: %w", path, to.Address, c.callError(err, to.Address))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("call %s of node %s: read its answer: %w", path, to.Address, err)
	}
	if resp.StatusCode != http.StatusOK {
		return c.remoteError(answer, to.Address, path, resp.Status)
	}
	if err := unmarshalStrict(answer, out); err != nil {
		return fmt.Errorf("call %s of node %s: understand its answer: %w", path, to.Address, err)
	}
	return nil
}

// callError strips the URL that net/http puts before an error, and names a refusal
// that arrived only after our half of the handshake was done.
func (c *Client) callError(err error, to netip.AddrPort) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	if ReasonOf(err) != 0 {
		return err // dial counted it
	}
	return c.link.tally.noteError(handshakeError(err, to, c.link.cfg.Credentials.authority))
}

func (c *Client) remoteError(answer []byte, peer netip.AddrPort, path, status string) error {
	var body errorBody
	if err := json.Unmarshal(answer, &body); err != nil || body.Code == "" {
		return &RemoteError{Peer: peer, Code: codeFailed, Text: fmt.Sprintf("%s: answer %q without an explanation", path, status)}
	}
	if reason, ok := reasonNamed(body.Code); ok {
		return c.link.tally.noteError(&Refused{Reason: reason, Peer: peer, ByPeer: true, Detail: "it says: " + body.Error})
	}
	return &RemoteError{Peer: peer, Code: body.Code, Text: body.Error}
}

func unmarshalStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
