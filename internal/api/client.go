package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// Errors of a Client that a caller may want to act on.
var (
	// ErrNoDaemon means that nobody listens on the socket.
	ErrNoDaemon = errors.New("no daemon listens there")
	// ErrNoAnswer means that the kernel took the connection and no answer came.
	ErrNoAnswer = errors.New("the daemon does not answer")
)

// An Error is an answer that says no.
type Error struct {
	Code int    // HTTP status; 409 is a refusal
	Text string // what the daemon says
}

// Error is what the daemon says.
func (e *Error) Error() string { return e.Text }

const (
	// answerTime is how long a daemon may take over a question.
	answerTime = 3 * time.Second
	// maxAnswer bounds what a client reads, in bytes.
	maxAnswer = 16 << 20
)

// A Client asks the daemon that listens on a socket. Its methods may be called
// concurrently.
type Client struct {
	path     string
	version  string
	patience time.Duration
	http     *http.Client

	mu         sync.Mutex
	difference string // see Difference
}

// NewClient returns a client for the socket at path. The version is the caller's
// own, for errors that come of asking a daemon of another.
func NewClient(path, version string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{path: path, version: version, patience: answerTime,
		http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConns: 1, IdleConnTimeout: 10 * time.Second}}}
}

// Difference says that the daemon is of another version than the caller, when a question
// failed that may have done so for that, or an answer lacked fields. Else it is empty.
// It is of the last answer.
func (c *Client) Difference() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.difference
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks what the node knows.
func (c *Client) Status(ctx context.Context) (core.Status, error) {
	var st core.Status
	err := c.call(ctx, c.patience, http.MethodGet, pathStatus, nil, &st)
	return st, err
}

// VRRP asks what the node hears of VRRP.
func (c *Client) VRRP(ctx context.Context) (VRRP, error) {
	var v VRRP
	err := c.call(ctx, c.patience, http.MethodGet, pathVRRP, nil, &v)
	return v, err
}

// Move has a node made the owner of a group, and returns when that is committed.
// After an error other than *Error the outcome is not known.
func (c *Client) Move(ctx context.Context, group, node string) (Moved, error) {
	var m Moved
	err := c.call(ctx, MoveTime+c.patience, http.MethodPost, pathMove, MoveRequest{group, node}, &m)
	return m, err
}

// Release asks the node to let go of every group; Status shows when it has.
func (c *Client) Release(ctx context.Context) (Released, error) {
	var r Released
	err := c.call(ctx, c.patience, http.MethodPost, pathRelease, struct{}{}, &r)
	return r, err
}

// Drain keeps a node from owning groups, or with yes false lets it again, and returns
// when that is committed; an empty name is the daemon's own node. As with every order,
// after an error other than *Error the outcome is not known.
func (c *Client) Drain(ctx context.Context, node string, yes bool) (Drained, error) {
	path := pathDrain
	if !yes {
		path = pathUndrain
	}
	return order[Drained](ctx, c, path, NodeRequest{Node: node})
}

// Remove takes a node out of the cluster for good.
func (c *Client) Remove(ctx context.Context, node string, force bool) (Removed, error) {
	return order[Removed](ctx, c, pathRemove, NodeRequest{Node: node, Force: force})
}

// Apply replaces the document.
func (c *Client) Apply(ctx context.Context, req ApplyRequest) (Applied, error) {
	return order[Applied](ctx, c, pathApply, req)
}

// Rollback replaces the document by an earlier one.
func (c *Client) Rollback(ctx context.Context, req RollbackRequest) (Applied, error) {
	return order[Applied](ctx, c, pathRollback, req)
}

// Restore puts back what a snapshot says that operators wanted.
func (c *Client) Restore(ctx context.Context, s Snapshot) (Restored, error) {
	return order[Restored](ctx, c, pathRestore, s)
}

func order[T any](ctx context.Context, c *Client, path string, in any) (out T, err error) {
	err = c.call(ctx, AdminTime+c.patience, http.MethodPost, path, in, &out)
	return out, err
}

// History asks for the revisions that are kept, oldest first.
func (c *Client) History(ctx context.Context) ([]Revision, error) {
	var h history
	err := c.call(ctx, c.patience, http.MethodGet, pathHistory, nil, &h)
	return h.Revisions, err
}

// Revision asks for one of them with its document.
func (c *Client) Revision(ctx context.Context, revision uint64) (Revision, error) {
	var out Revision
	err := c.call(ctx, c.patience, http.MethodGet, pathRevision+strconv.FormatUint(revision, 10), nil, &out)
	return out, err
}

// Explain asks why a group is where it is.
func (c *Client) Explain(ctx context.Context, group string) (fsm.Explanation, error) {
	var e fsm.Explanation
	err := c.call(ctx, c.patience, http.MethodGet, pathExplain+url.PathEscape(group), nil, &e)
	return e, err
}

// Snapshot asks for the replicated state.
func (c *Client) Snapshot(ctx context.Context) (Snapshot, error) {
	var s Snapshot
	err := c.call(ctx, c.patience, http.MethodGet, pathSnapshot, nil, &s)
	return s, err
}

func (c *Client) call(ctx context.Context, patience time.Duration, method, path string, in, out any) error {
	if len(c.path) > maxPath {
		return fmt.Errorf("socket %s: the path has %d bytes, the kernel's limit is %d", c.path, len(c.path), maxPath)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, ErrNoAnswer)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode the question: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://quorate"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make the question: %w", err)
	}
	if in == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(ctx, patience, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.explain(ctx, patience, err)
	}
	return c.read(resp, answer, out)
}

// read takes the answer apart. Fields that this version does not know are those of
// a newer daemon and are left out.
func (c *Client) read(resp *http.Response, answer []byte, out any) error {
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		if err := json.Unmarshal(answer, out); err != nil {
			c.compare(resp, "")
			return fmt.Errorf("read the answer of the daemon at %s: %w", c.path, err)
		}
		if lacking := lacks(answer, out); lacking != nil {
			c.compare(resp, "; its answer does not have "+strings.Join(lacking, ", "))
		} else {
			c.differ("")
		}
		return nil
	}
	c.compare(resp, "")
	var p problem
	if err := json.Unmarshal(answer, &p); err != nil || p.Error == "" {
		return fmt.Errorf("whoever listens on %s answers %s and gives no reason: is it quorate?", c.path, resp.Status)
	}
	return &Error{Code: resp.StatusCode, Text: p.Error}
}

// compare takes down that the daemon is not of the caller's version.
func (c *Client) compare(resp *http.Response, what string) {
	v := resp.Header.Get(VersionHeader)
	if v == "" || v == c.version {
		c.differ("")
		return
	}
	c.differ(fmt.Sprintf("the daemon is of version %s and this command of %s%s: restart the daemon with the installed one (systemctl restart quorate)",
		v, c.version, what))
}

func (c *Client) differ(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.difference = text
}

// lacks names the fields of a struct that are always written, and are not in the answer.
func lacks(answer []byte, out any) []string {
	t := reflect.TypeOf(out).Elem()
	var have map[string]json.RawMessage
	if t.Kind() != reflect.Struct || json.Unmarshal(answer, &have) != nil {
		return nil
	}
	var lacking []string
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if _, ok := have[name]; !ok && name != "" && name != "-" && !strings.Contains(options, "omit") {
			lacking = append(lacking, name)
		}
	}
	return lacking
}

// explain turns an error of the connection into one that says what to do.
func (c *Client) explain(ctx context.Context, patience time.Duration, err error) error {
	say := func(kind error, format string, args ...any) error {
		return &unreachable{fmt.Sprintf(format, args...), kind}
	}
	const see = "see systemctl status quorate"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return say(ErrNoDaemon, "there is no socket %s: is the daemon running? %s, or name another with --socket or --config", c.path, see)
	case errors.Is(err, syscall.ECONNREFUSED):
		return say(ErrNoDaemon, "nobody listens on %s any more: the daemon has died; %s", c.path, see)
	case errors.Is(err, fs.ErrPermission):
		return say(fs.ErrPermission, "no permission to use %s: join group %s (usermod -aG %[2]s NAME, and log in anew), or ask as root", c.path, socketGroup)
	case errors.Is(err, syscall.EAGAIN):
		return say(ErrNoAnswer, "the daemon at %s takes no more connections: it is frozen or overloaded; its log may say why", c.path)
	case errors.Is(context.Cause(ctx), ErrNoAnswer):
		return say(ErrNoAnswer, "the daemon at %s takes the connection and does not answer within %s: it is frozen or overloaded; its log may say why", c.path, patience)
	case ctx.Err() != nil:
		return fmt.Errorf("ask the daemon at %s: %w", c.path, err)
	}
	// What the library returns for a connection that ended has many forms.
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		err = outer.Err
	}
	return say(ErrNoAnswer, "the daemon at %s gives no answer (%v): it is stopping, or has died, or is not quorate; %s", c.path, err, see)
}

// unreachable is an error whose text says it all; kind is for errors.Is.
type unreachable struct {
	text string
	kind error
}

func (e *unreachable) Error() string { return e.text }
func (e *unreachable) Unwrap() error { return e.kind }
