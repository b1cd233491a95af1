package raftnode

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// The files of a data directory, besides Raft's own (raft.db, snapshots/).
const (
	fileLock     = "lock"     // flock; holds the process id of who has it
	fileInstance = "instance" // the instance id, hexadecimal
	fileLongest  = "longest"  // longest lease and grace ever confirmed, as Go prints durations
	filePledge   = "pledge"   // election.Pledge in JSON
	fileState    = "state"    // present once Raft has stored anything
	fileLog      = "raft.db"
)

// ErrLocked means that another process uses the data directory.
var ErrLocked = errors.New("the data directory is in use")

// A DataDir is a node's durable memory, locked for this process until Close. Its
// methods may be called concurrently.
type DataDir struct {
	path   string
	unlock func()
	id     fsm.InstanceID

	mu      sync.Mutex
	longest time.Duration
	pledge  election.Pledge
}

// OpenDataDir opens the directory, making it (mode 0700) and an instance id if
// they are not there, and locks it. A second process gets ErrLocked, a directory
// that cannot be written an error that says so: what a voter confirms must
// outlive it.
func OpenDataDir(path string) (*DataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, explain(path, "make the data directory", err)
	}
	unlock, err := TryLock(path)
	if err != nil {
		return nil, err
	}
	d := &DataDir{path: path, unlock: unlock}
	if err := d.load(); err != nil {
		unlock()
		return nil, err
	}
	return d, nil
}

// TryLock takes the lock of an existing data directory without waiting and
// without opening anything else in it. It fails with ErrLocked while a daemon runs
// there, and with fs.ErrNotExist where none ever did. The caller calls unlock when
// it is done; the end of the process does it too.
func TryLock(path string) (unlock func(), err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, explain(path, "look at the data directory", err)
	}
	f, err := os.OpenFile(filepath.Join(path, fileLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, explain(path, "open the lock of the data directory", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		who := lockedBy(f)
		f.Close()
		return nil, fmt.Errorf("another quorate (%s) uses %s; stop it first, or give this one another data_dir: %w", who, path, ErrLocked)
	}
	if err != nil {
		f.Close()
		return nil, explain(path, "lock the data directory", err)
	}
	// The number is for the message above only; the kernel keeps the lock.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return func() { f.Close() }, nil
}

func lockedBy(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return "pid " + pid
	}
	return "pid unknown"
}

func (d *DataDir) load() error {
	switch text, err := d.read(fileInstance); {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := rand.Read(d.id[:]); err != nil {
			return fmt.Errorf("make an instance id: %w", err)
		}
		if err := d.write(fileInstance, []byte(d.id.String()+"\n")); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if d.id, err = fsm.ParseInstanceID(text); err != nil {
			return fmt.Errorf("read %s: %w", filepath.Join(d.path, fileInstance), err)
		}
	}
	switch text, err := d.read(fileLongest); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if d.longest, err = time.ParseDuration(text); err != nil || d.longest < 0 {
			return fmt.Errorf("read %s: %q is no duration; it bounds how long others may still answer: write the longest lease plus fence grace that was ever used here, such as 2s",
				filepath.Join(d.path, fileLongest), text)
		}
	}
	switch text, err := d.read(filePledge); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal([]byte(text), &d.pledge); err != nil {
			return fmt.Errorf("read %s: %w", filepath.Join(d.path, filePledge), err)
		}
	}
	return nil
}

// Path is where the directory is.
func (d *DataDir) Path() string { return d.path }

// Instance is the directory's identity.
func (d *DataDir) Instance() fsm.InstanceID { return d.id }

// LongestHold is the longest lease plus fence grace that this node as a voter ever
// confirmed, over all its lives; zero: none (lease.md, V4).
func (d *DataDir) LongestHold() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.longest
}

// SetLongestHold makes a longer one durable; it returns when the disk has it. A
// voter calls it before it first confirms one of that length. A shorter one changes
// nothing.
func (d *DataDir) SetLongestHold(longest time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if longest <= d.longest {
		return nil
	}
	if err := d.write(fileLongest, []byte(longest.String()+"\n")); err != nil {
		return err
	}
	d.longest = longest
	return nil
}

// Pledge is the word this node gave when a cluster was to be formed; zero: none.
func (d *DataDir) Pledge() election.Pledge {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pledge
}

// setPledge makes a pledge durable. Whether it may be given is for
// election.AcceptPledge to say, under a lock that also covers this call.
func (d *DataDir) setPledge(p election.Pledge) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode pledge: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if have, err := json.Marshal(d.pledge); err == nil && bytes.Equal(have, b) {
		return nil // asked again for the same
	}
	if err := d.write(filePledge, append(b, '\n')); err != nil {
		return err
	}
	d.pledge = p
	return nil
}

// hadState reports whether Raft ever stored anything here.
func (d *DataDir) hadState() bool {
	_, err := os.Stat(filepath.Join(d.path, fileState))
	return err == nil
}

func (d *DataDir) markState() error {
	if d.hadState() {
		return nil
	}
	return d.write(fileState, []byte("Raft has stored entries here. Do not bring this directory back without "+fileLog+".\n"))
}

// Close gives the directory up.
func (d *DataDir) Close() { d.unlock() }

func (d *DataDir) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(d.path, name))
	if err != nil {
		return "", explain(d.path, "read "+name+" in the data directory", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// write replaces a file so that after a crash either the old or the new content is
// there, whole, and returns when it is on the disk.
func (d *DataDir) write(name string, content []byte) error {
	if err := d.replace(name, content); err != nil {
		return explain(d.path, "write "+name+" in the data directory", err)
	}
	return nil
}

func (d *DataDir) replace(name string, content []byte) error {
	f, err := os.CreateTemp(d.path, "."+name+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed, which is well
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(d.path, name)); err != nil {
		return err
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// explain adds to an error of the data directory what an operator can do about it.
func explain(path, doing string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		advice = ": the disk is full; make room, quorate must be able to write its votes down"
	case errors.Is(err, syscall.EROFS):
		advice = ": the file system is read-only; set data_dir to one that can be written"
	case errors.Is(err, fs.ErrPermission):
		advice = ": give it to the user that runs quorate, or set data_dir to another directory"
	case errors.Is(err, syscall.ENOTDIR):
		advice = ": a part of the path is a file; set data_dir to a directory"
	}
	return fmt.Errorf("%s %s: %w%s", doing, path, err, advice)
}
