package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// ErrNoWallStep means that the time of day of a single process cannot be stepped here.
var ErrNoWallStep = errors.New("the time of day of one process can be stepped on amd64 only")

// Stepping the machine's time of day would hit everybody on it. Programs read it
// through a function that the kernel maps into each of them (vdso(7)), and a debugger
// may write to that mapping: the page becomes the process's own. This puts there
//
//	mov  eax, 228          clock_gettime, by an ordinary system call
//	syscall
//	test edi, edi          CLOCK_REALTIME is 0
//	jne  1f
//	add  qword [rsi], step seconds
//	1: ret
//
// so that one process finds its time of day stepped, and its other clocks as they were.
var wallStub = []byte{0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05, 0x85, 0xff, 0x75, 0x07, 0x48, 0x81, 0x06, 0, 0, 0, 0, 0xc3}

// stepAt is where in the stub the step is, a signed number of 32 bits.
const stepAt = 14

// StepWall moves the process's time of day, by whole seconds, for the rest of its life
// or until it is stepped back. The process is stopped for a moment; it must not be
// frozen otherwise meanwhile. With one that has ended there is nothing to do.
func (p *Process) StepWall(by time.Duration) error {
	if runtime.GOARCH != "amd64" {
		return ErrNoWallStep
	}
	const tries = 20
	for range tries {
		if !p.Running() {
			return nil
		}
		done, err := p.stepWall(int64(by / time.Second))
		if err != nil {
			return fmt.Errorf("step the time of day of %s: %w", p.Name, err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("step the time of day of %s: a thread was reading it, %d times over", p.Name, tries)
}

// stepWall says false when a thread was just where it would have written.
func (p *Process) stepWall(seconds int64) (done bool, err error) {
	if err := p.Freeze(); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, p.Thaw()) }()
	if err := p.stopped(); err != nil {
		return false, err
	}
	start, err := vdsoStart(strconv.Itoa(p.Pid()))
	if err != nil {
		return false, err
	}
	offset, err := clockGettimeOffset()
	if err != nil {
		return false, err
	}
	at := start + offset
	if busy, err := p.inside(at, at+uint64(len(wallStub))); err != nil || busy {
		return false, err
	}
	mem, err := os.OpenFile(p.proc("mem"), os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, mem.Close()) }()
	code := bytes.Clone(wallStub)
	was := make([]byte, len(code))
	if _, err := mem.ReadAt(was, int64(at)); err != nil {
		return false, err
	}
	if bytes.Equal(was[:stepAt], code[:stepAt]) { // it was stepped before
		seconds += int64(int32(binary.LittleEndian.Uint32(was[stepAt:])))
	}
	if seconds < math.MinInt32 || seconds > math.MaxInt32 {
		return false, fmt.Errorf("%d seconds do not fit 32 bits", seconds)
	}
	binary.LittleEndian.PutUint32(code[stepAt:], uint32(int32(seconds)))
	_, err = mem.WriteAt(code, int64(at))
	return err == nil, err
}

func (p *Process) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(p.Pid()), name)
}

// stopped waits until every thread of a process that was sent SIGSTOP has stopped.
func (p *Process) stopped() error {
	deadline := Now().Add(5 * time.Second)
	for {
		all := true
		stats, err := filepath.Glob(p.proc("task/*/stat"))
		if err != nil {
			return err
		}
		for _, path := range stats {
			b, err := os.ReadFile(path)
			if err != nil {
				continue // the thread ended meanwhile
			}
			_, rest, _ := strings.Cut(string(b), ") ")
			all = all && strings.HasPrefix(rest, "T")
		}
		if all && len(stats) > 0 {
			return nil
		}
		if Now() > deadline {
			return errors.New("it does not stop")
		}
		time.Sleep(time.Millisecond)
	}
}

// inside says whether a stopped thread stands in [from, to).
func (p *Process) inside(from, to uint64) (bool, error) {
	paths, err := filepath.Glob(p.proc("task/*/syscall"))
	if err != nil {
		return false, err
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return false, err
		}
		words := strings.Fields(string(b)) // the last is where it goes on
		pc, err := strconv.ParseUint(words[len(words)-1], 0, 64)
		if err != nil {
			return false, fmt.Errorf("read where a thread stands, %q: %w", b, err)
		}
		if from <= pc && pc < to {
			return true, nil
		}
	}
	return false, nil
}

// vdsoStart returns where the kernel's mapping is in a process ("self" is one too).
func vdsoStart(pid string) (uint64, error) {
	maps, err := os.ReadFile(filepath.Join("/proc", pid, "maps"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		from, _, _ := strings.Cut(line, "-")
		return strconv.ParseUint(from, 16, 64)
	}
	return 0, errors.New("it has no [vdso]")
}

// clockGettimeOffset returns where in the kernel's mapping its clock_gettime is: every
// process has the same image.
func clockGettimeOffset() (offset uint64, err error) {
	start, err := vdsoStart("self")
	if err != nil {
		return 0, err
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, mem.Close()) }()
	const most = 1 << 20 // bytes; the image is two pages
	image, err := elf.NewFile(io.NewSectionReader(mem, int64(start), most))
	if err != nil {
		return 0, err
	}
	symbols, err := image.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			return s.Value, nil
		}
	}
	return 0, errors.New("the [vdso] has no __vdso_clock_gettime")
}
