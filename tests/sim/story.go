package sim

import (
	"bufio"
	"fmt"
	"strings"
	"time"
)

// A Story is a scenario as text: what is done to a small World, and what came of it.
//
//	# A comment. The first lines say what the scenario is about.
//	world hosts=3 lease=250ms
//	at 3s     cut n1
//	+20ms     move web n2
//	when      holds n2 10.0.0.200
//	+1ms      mend
//	at 6s     end
//	----
//	  3000 n1 …
//
// Each line above the rule begins with a time: `at` an instant of true time, `+` a
// while after the line before, or `when`, as soon as something is so (within ten
// seconds). What can be done is in storyCommands, and what can be waited for in
// storyConditions. Below the rule is the trace. In a story whatever takes time takes
// what it takes on average, so that nothing depends on a seed.
type Story struct {
	Name   string
	play   []string // the lines above the rule, as they stand
	trace  []string
	Failed string // why it did not come to its end; empty: it did
	*World
}

// rule is between what is done and what came of it.
const rule = "----"

// ParseStory reads a story.
func ParseStory(name, text string) *Story {
	s := &Story{Name: name}
	into := &s.play
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if line := lines.Text(); line == rule {
			into = &s.trace
		} else {
			*into = append(*into, line)
		}
	}
	return s
}

// Play plays the story and returns its text with the trace that came of it.
func (s *Story) Play() string {
	if err := s.run(); err != nil {
		s.Failed = err.Error()
	}
	var out []string
	if s.World != nil {
		s.Close()
		out = s.watch.story
		if v := s.watch.violations; s.Failed == "" && len(v) > 0 {
			s.Failed = v[0]
		}
	}
	return strings.Join(s.play, "\n") + "\n" + rule + "\n" + strings.Join(out, "\n") + "\n"
}

// Want is the text of the story with the trace that it was read with.
func (s *Story) Want() string {
	return strings.Join(s.play, "\n") + "\n" + rule + "\n" + strings.Join(s.trace, "\n") + "\n"
}

func (s *Story) run() error {
	for i, line := range s.play {
		words := strings.Fields(line)
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		if err := s.line(words); err != nil {
			return fmt.Errorf("line %d, %q: %w", i+1, line, err)
		}
	}
	return nil
}

func (s *Story) line(words []string) error {
	if words[0] == "world" {
		env, err := storyWorld(words[1:])
		if err != nil {
			return err
		}
		s.World = New(env, 1)
		s.watch.telling, s.watch.brief = true, true
		s.net.post = &post{}
		return nil
	}
	if s.World == nil {
		return fmt.Errorf("the first line is not a world")
	}
	rest, err := s.await(words)
	if err != nil || len(rest) == 0 || rest[0] == "end" {
		return err
	}
	do, ok := storyCommands[rest[0]]
	if !ok {
		return fmt.Errorf("no such command: %s", rest[0])
	}
	s.tell("-- %s", strings.Join(rest, " "))
	return s.try(func(a args) { do(s, a) }, rest[1:])
}

// await lets time pass as the first words say, and returns the others.
func (s *Story) await(words []string) ([]string, error) {
	first := words[0]
	switch {
	case first == "at" && len(words) > 1:
		at, err := time.ParseDuration(words[1])
		if err == nil && at < s.now {
			err = fmt.Errorf("it is %v already", s.now)
		}
		if err == nil {
			s.Run(at - s.now)
		}
		return words[2:], err
	case first[0] == '+':
		d, err := time.ParseDuration(first[1:])
		if err == nil {
			s.Run(d)
		}
		return words[1:], err
	case first == "when" && len(words) > 1:
		return nil, s.waitFor(words[1], words[2:])
	}
	return nil, fmt.Errorf("a line begins with at, + or when")
}

// storyPatience is how long a story waits for something.
const storyPatience = 10 * time.Second

func (s *Story) waitFor(what string, words []string) error {
	is, ok := storyConditions[what]
	if !ok {
		return fmt.Errorf("no such condition: %s", what)
	}
	for end := s.now + storyPatience; s.now < end; s.Run(100 * time.Microsecond) {
		so := false
		if err := s.try(func(a args) { so = is(s, a) }, words); err != nil || so {
			return err
		}
	}
	return fmt.Errorf("not so within %v", storyPatience)
}

// A badWord is what args panics with.
type badWord struct{ error }

// try gives words to a function that may find them wrong.
func (s *Story) try(do func(args), words []string) (err error) {
	defer func() {
		if bad, ok := recover().(badWord); ok {
			err = bad
		}
	}()
	do(args{s.World, words})
	return nil
}
