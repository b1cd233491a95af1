package hooks

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
)

func TestLine(t *testing.T) {
	for state, want := range map[string]string{
		Active: "INSTANCE \"web\" MASTER 150\n", Backup: "INSTANCE \"web\" BACKUP 150\n", Fault: "INSTANCE \"web\" FAULT 150\n",
	} {
		if got := line(Transition{Group: "web", To: state}, 150); got != want {
			t.Errorf("line = %q, want %q", got, want)
		}
	}
}

// A consumer that comes late finds the lines in the order of the transitions.
func TestFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	r, _, _ := begin(t, func(r *Runner) { r.opt.FIFO, r.fifo.path = path, path })
	r.Update(fsm.Document{Groups: []fsm.Group{{Name: "web"}}})
	r.Transition(to("web", "", Backup))
	r.Transition(to("web", Backup, Active))
	r.Transition(to("db", Backup, Fault)) // not in the document any more
	f, err := openWhenThere(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for _, want := range []string{`INSTANCE "web" BACKUP 150`, `INSTANCE "web" MASTER 150`, `INSTANCE "db" FAULT 150`} {
		if !in.Scan() || in.Text() != want {
			t.Fatalf("read %q, want %q", in.Text(), want)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeNamedPipe|0o600 {
		t.Errorf("the pipe: %v, %v", info.Mode(), err)
	}
}

// TestSetFIFO: lines go to another pipe from then on, and to none.
func TestSetFIFO(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	r, _, end := begin(t, func(r *Runner) { r.opt.FIFO, r.fifo.path = first, first })
	r.Update(fsm.Document{Groups: []fsm.Group{{Name: "web"}}})
	was, err := openWhenThere(first)
	if err != nil {
		t.Fatal(err)
	}
	defer was.Close()
	r.SetFIFO(second)
	f, err := openWhenThere(second)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r.Transition(to("web", "", Backup))
	if in := bufio.NewScanner(f); !in.Scan() || in.Text() != `INSTANCE "web" BACKUP 150` {
		t.Fatalf("read %q", in.Text())
	}
	r.SetFIFO("")
	r.Transition(to("web", Backup, Active))
	end()
	if r.fifo.inode != 0 || r.fifo.dropped != 0 {
		t.Errorf("the pipe is open, or lines were dropped: %+v", &r.fifo)
	}
}

// openWhenThere opens the pipe as soon as the Runner has made it.
func openWhenThere(path string) (f *os.File, err error) {
	for range 1_000_000 {
		if f, err = os.Open(path); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return f, err
}

// Nobody reads: the pipe fills up, later lines are dropped and counted, none waits. Then
// somebody does, and the lines are whole.
func TestNobodyReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	f := fifo{path: path}
	defer f.close()
	const each = `INSTANCE "web" MASTER 150` + "\n"
	many := make([]string, 10_000)
	for i := range many {
		many[i] = each
	}
	dropped := f.write(many)
	if dropped == 0 || dropped == uint64(len(many)) || !errors.Is(f.err, unix.EAGAIN) {
		t.Fatalf("%d of %d dropped, %v", dropped, len(many), f.err)
	}
	in, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	b := make([]byte, len(many)*len(each))
	n, err := in.Read(b)
	if err != nil || string(b[:n]) != strings.Repeat(each, n/len(each)) {
		t.Errorf("read %d bytes, which are not whole lines: %v", n, err)
	}
	if dropped := f.write(many[:1]); dropped != 0 {
		t.Errorf("dropped with room in the pipe: %v", f.err)
	}
}

func TestWhatStandsInThePipesPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fifo")
	f := fifo{path: path}
	defer f.close()
	if n := f.write([]string{"a\n"}); n != 0 {
		t.Fatal(f.err)
	}
	// Somebody removed it: there is a new one with the next line.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if n := f.write([]string{"b\n"}); n != 0 {
		t.Fatal(f.err)
	}
	in, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	b := make([]byte, 100)
	if n, err := in.Read(b); err != nil || string(b[:n]) != "b\n" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	// A file that only looks like one is left alone.
	for name, put := range map[string]func() error{
		"file": func() error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"link": func() error { return os.Symlink("/dev/null", path) },
		"dir":  func() error { return os.Mkdir(path, 0o700) },
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if n := f.write([]string{"c\n", "d\n"}); n != 2 || !strings.Contains(f.err.Error(), "is not a named pipe: remove it") {
			t.Errorf("%s: %d dropped, %v", name, n, f.err)
		}
	}
	nowhere := fifo{path: dir + "/none/fifo"}
	if n := nowhere.write([]string{"a\n"}); n != 1 || !strings.Contains(nowhere.err.Error(), "its directory must exist") {
		t.Errorf("%d dropped, %v", n, nowhere.err)
	}
	if n := nowhere.write(nil); n != 0 {
		t.Error("nothing was dropped")
	}
}

// A Runner whose pipe is not to be had runs its programs all the same.
func TestPipeThatIsNotToBeHad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "fifo")
	r, rec, end := begin(t, func(r *Runner) { r.opt.FIFO, r.fifo.path = path, path })
	r.Update(fsm.Document{Groups: []fsm.Group{group("web", fsm.Hooks{Active: rec.say("up")})}})
	r.Transition(to("web", Backup, Active))
	rec.await(t, 1)
	end()
	for _, want := range []string{"cannot open the pipe", "lines were dropped", "lines=1 in_all=1"} {
		if !strings.Contains(rec.logged(), want) {
			t.Errorf("no %q in the log:\n%s", want, rec.logged())
		}
	}
}

func TestLinesAreBounded(t *testing.T) {
	var l lines
	for range maxLines + 5 {
		l.add("x\n")
	}
	if out, dropped := l.take(); len(out) != maxLines || dropped != 5 {
		t.Errorf("%d wait, %d dropped", len(out), dropped)
	}
	if out, dropped := l.take(); len(out) != 0 || dropped != 0 {
		t.Errorf("%d wait, %d dropped after they were taken", len(out), dropped)
	}
}
