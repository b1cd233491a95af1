package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// told is an explanation as text, a line each.
func told(e Explanation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s owner=%q reason=%q together=%v\n", e.Group, e.Placement, e.Owner, e.Reason, e.Together)
	for _, c := range e.Candidates {
		fmt.Fprintf(&b, "  %s %d %v: %s\n", c.Name, c.Score, c.Fit, strings.Join(c.Why, ", "))
	}
	for _, n := range e.Next {
		fmt.Fprintf(&b, "  > %s\n", n)
	}
	return b.String()
}

func (sc *scene) explain(group, want string) {
	sc.t.Helper()
	e, err := Explain(sc.s, sc.v, group)
	if err != nil {
		sc.t.Fatal(err)
	}
	if got := told(e); got != strings.TrimPrefix(want, "\n") {
		sc.t.Errorf("got\n%s\nwant%s", got, want)
	}
}

func TestExplainPriority(t *testing.T) {
	g := preferring("web", "10.0.0.1/24", map[string]uint8{"n1": 150, "n4": 0}, Preempt{Yes: true, Delay: 30 * time.Second})
	g.Checks, g.Apart = []string{"c"}, []string{"db"}
	d := doc(g, db)
	d.Checks = []Check{check("c")}
	d.Checks[0].Weight = -20
	sc := newScene(t, 4, d).on("web=n2 db=n3", ReasonLost)
	sc.adjust("n3", "web", -20)
	sc.node("n1", func(n *NodeView) { n.FitFor = map[string]time.Duration{"web": 12 * time.Second} })
	sc.explain("web", `
web priority owner="n2" reason="owner-lost" together=[]
  n2 100 true: owns it
  n1 150 true: has been fit for 12s of the 30s that preempt waits
  n3 80 true: has db, which is to be apart from it, has priority 100 and -20 by checks and devices
  n4 0 false: has priority 0 for it: never there
  w 0 false: is a witness and never holds an address
  > if n2 is lost, it goes to n1
  > preempt: it goes to a node of higher score that has been fit for 30s
  > if a check or device with a weight brings its owner down and another node is better, it goes there, whatever preempt says
`)
	sc.node("n1", func(n *NodeView) { n.FitFor, n.Failed = nil, map[string]int{"web": 2} })
	sc.on("web=n3", ReasonMove)
	sc.adjust("n3", "web", 0)
	sc.node("n4", func(n *NodeView) { n.Alive = false })
	sc.explain("web", `
web priority owner="n3" reason="move" together=[]
  n3 100 true: owns it, has db, which is to be apart from it
  n2 100 true: 
  n1 150 true: was tried in vain 2 times
  n4 0 false: is not heard by a majority, has priority 0 for it: never there
  w 0 false: is a witness and never holds an address
  > if n3 is lost, it goes to n2
  > it was moved there by hand: preempt leaves it there until it must leave or is moved again
  > if a check or device with a weight brings its owner down and another node is better, it goes there, whatever preempt says
  > it is to be apart from db, which goes to n1 now
`)
	sc.want("db=n1:apart")
}

func TestExplainStates(t *testing.T) {
	one, two := web, db
	one.Together, one.WhenAllFail = []string{"db"}, AllFailRelease
	sc := newScene(t, 3, doc(one, two))
	sc.explain("web", `
web leader owner="" reason="" together=[db]
  n1 100 true: leads the cluster
  n2 100 true: 
  n3 100 true: 
  w 0 false: is a witness and never holds an address
  > it goes to n1 now: it has no owner
`)
	sc.on("web=n1 db=n1", ReasonFirst)
	sc.failing("db", "n2")
	sc.node("n3", func(n *NodeView) { n.Stopping = true })
	sc.explain("web", `
web leader owner="n1" reason="first" together=[db]
  n1 100 true: owns it, leads the cluster
  n2 100 false: fails a check of db, which moves with it
  n3 100 false: is stopping
  w 0 false: is a witness and never holds an address
  > if n1 is lost, it goes to the node that leads then, or to n2
  > placement leader: who has it keeps it, also when another node comes to lead
`)
	sc.do(Command{Drain: &Drain{Node: sc.id("n1"), Drained: true}})
	sc.failing("web", "n1", "n2")
	sc.node("n1", func(n *NodeView) { n.Overdue = map[string]bool{"db": true} })
	sc.explain("web", `
web leader owner="n1" reason="first" together=[db]
  n1 100 false: owns it, is drained, fails a check of it, leads the cluster
  n2 100 false: fails a check of it
  n3 100 false: is stopping
  w 0 false: is a witness and never holds an address
  > nobody will hold it: no node passes its checks, and when_all_fail is release
`)
	sc.want("web=-:all-fail db=n2:not-open")
	sc.explain("web", `
web leader owner="" reason="all-fail" together=[db]
  n2 100 false: fails a check of it
  n1 100 false: is drained, fails a check of it, leads the cluster
  n3 100 false: is stopping
  w 0 false: is a witness and never holds an address
  > it goes to the first node that is fit for it; none is
`)
	sc.explain("db", `
db leader owner="n2" reason="not-open" together=[web]
  n2 100 false: owns it, fails a check of it
  n1 100 false: is drained, has not opened it in time, leads the cluster
  n3 100 false: is stopping
  w 0 false: is a witness and never holds an address
  > it should leave (check-failed), and stays until another node is fit: its owner fails a check, or one has brought its score down
  > no node is fit for all groups that are to be together; they gather as soon as one is
  > placement leader: who has it keeps it, also when another node comes to lead
`)
}

func TestExplainUnknownGroup(t *testing.T) {
	_, err := Explain(formed(t, web, db), View{}, "nosuch")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), `there is no group "nosuch"; the document has web, db`) {
		t.Fatalf("error %v", err)
	}
}

func TestExplanationInJSON(t *testing.T) {
	e, err := Explain(newScene(t, 1, doc(web)).s, View{}, "web")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"group":"web","placement":"leader","owner":"","epoch":0,"reason":"","candidates":[` +
		`{"name":"n1","score":100,"fit":false,"why":["is not heard by a majority"]},` +
		`{"name":"w","score":0,"fit":false,"why":["is a witness and never holds an address"]}],` +
		`"next":["it goes to the first node that is fit for it; none is"]}`
	if string(data) != want {
		t.Fatalf("got  %s\nwant %s", data, want)
	}
}
