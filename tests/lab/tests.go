package lab

import (
	"flag"
	"fmt"
	"os"
	"strconv"
)

// RunTests runs a package's tests that wait for timers most of the time: unless the
// command line says how many, this many at once, which is more than there are processors.
// dir is where they may build the program under test, until they are done. It returns the
// exit code.
func RunTests(m interface{ Run() int }, atOnce int, dir *string) int {
	flag.Parse()
	code, err := runTests(m, atOnce, dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func runTests(m interface{ Run() int }, atOnce int, dir *string) (code int, err error) {
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(strconv.Itoa(atOnce)); err != nil {
			return 0, err
		}
	}
	if *dir, err = os.MkdirTemp("", "quorate-build-"); err != nil {
		return 0, err
	}
	code = m.Run()
	return code, os.RemoveAll(*dir)
}
