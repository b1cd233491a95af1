package fsm

import (
	"fmt"
	"testing"
	"time"
)

func TestApart(t *testing.T) {
	one, two := web, db
	two.Apart = []string{"web"}
	sc := newScene(t, 2, doc(one, two))
	sc.want("web=n1:first db=n2:first")
	sc.alive("n1", false)
	sc.want("web=n2:owner-lost") // there is no other
	sc.alive("n1", true)
	sc.want("db=n1:apart") // the later in the document goes
	sc.on("db=n2", ReasonMove)
	sc.want("web=n1:apart") // not what a person just put there
	sc.node("n2", func(n *NodeView) { n.Failing = map[string]bool{"db": true} })
	sc.want("db=n1:check-failed web=n2:apart")
	sc.node("n2", func(n *NodeView) { n.Unfit = map[string]bool{"web": true} })
	sc.want("web=n1:owner-unfit") // better on one node than on none
}

// Of two the one that gains by it goes, so that no preempt is needed to undo it.
func TestApartByPriority(t *testing.T) {
	one := preferring("web", "10.0.0.1/24", map[string]uint8{"n1": 150}, Preempt{})
	two := preferring("db", "10.0.0.2/24", map[string]uint8{"n2": 150}, Preempt{})
	one.Apart = []string{"db"}
	sc := newScene(t, 2, doc(one, two)).on("web=n2 db=n2", ReasonLost)
	sc.want("web=n1:apart")
	// Neither is to have its way at the price of the other's company.
	one.Preempt, two.Preempt = Preempt{Yes: true}, Preempt{Yes: true}
	two.Priority = one.Priority
	sc.do(Command{Replace: &Replace{Seen: 1, Document: doc(one, two)}})
	sc.want("")
}

func TestTogether(t *testing.T) {
	one, two := web, db
	one.Together = []string{"db"}
	sc := newScene(t, 3, doc(one, two))
	sc.want("web=n1:first db=n1:first")
	sc.alive("n1", false)
	sc.want("web=n2:owner-lost db=n2:owner-lost")
	sc.alive("n1", true)
	sc.failing("db", "n2")
	sc.want("web=n1:together db=n1:check-failed")
	sc.on("db=n3", ReasonMove)
	sc.want("web=n3:together") // one moved by hand takes the others along
	sc.failing("db", "n1", "n2", "n3")
	sc.want("") // none is fit for both
	sc.failing("db", "n2", "n3")
	sc.want("web=n1:together db=n1:check-failed")
}

// While no node is fit for all, each is where it can be, and by the others if it can.
func TestTogetherSplit(t *testing.T) {
	one, two := web, db
	one.Together = []string{"db"}
	sc := newScene(t, 3, doc(one, two)).on("web=n1 db=n1", ReasonFirst)
	sc.failing("web", "n1")
	sc.failing("db", "n2")
	sc.want("web=n3:check-failed db=n3:together")
	sc = newScene(t, 3, doc(one, two)).on("web=n1 db=n1", ReasonFirst)
	sc.failing("web", "n1", "n3")
	sc.failing("db", "n2", "n3")
	sc.want("web=n2:check-failed")
	sc.failing("db", "n3")
	sc.want("db=n2:together") // where the one is that was moved last
	sc.failing("web", "n1", "n2", "n3")
	sc.alive("n2", false)
	sc.want("web=n1:owner-lost db=n1:owner-lost")
}

// Neither to a node that was tried in vain, nor before preempt would.
func TestApartWaits(t *testing.T) {
	one, two := preferring("web", "10.0.0.1/24", nil, Preempt{Yes: true, Delay: time.Minute}), db
	one.Apart = []string{"db"}
	sc := newScene(t, 2, doc(two, one)).on("web=n1 db=n1", ReasonLost)
	sc.node("n2", func(n *NodeView) { n.Failed = map[string]int{"web": 1, "db": 1} })
	sc.want("")
	sc.node("n2", func(n *NodeView) {
		n.Failed, n.FitFor = map[string]int{"db": 1}, map[string]time.Duration{"web": 59 * time.Second}
	})
	sc.want("")
	sc.node("n2", func(n *NodeView) { n.FitFor["web"] = time.Minute })
	sc.want("web=n2:apart")
}

// Two that say it of each other are apart as much as two of which one does.
func TestApartBothWays(t *testing.T) {
	one, two, three := web, db, group("mail", "10.0.0.3/24")
	one.Apart, two.Apart = []string{"db", "mail"}, []string{"web"}
	sc := newScene(t, 2, doc(two, three, one)).on("db=n1 mail=n2", ReasonFirst)
	sc.node("n1", func(n *NodeView) { n.Unfit = map[string]bool{"mail": true} })
	sc.node("n2", func(n *NodeView) { n.Unfit = map[string]bool{"db": true} })
	sc.want("web=n1:first")
}

// A unit is as good on a node as the worst placed of its groups.
func TestTogetherByPriority(t *testing.T) {
	one := preferring("web", "10.0.0.1/24", map[string]uint8{"n1": 200, "n2": 150, "n3": 110}, Preempt{Yes: true})
	two := preferring("db", "10.0.0.2/24", map[string]uint8{"n1": 10, "n2": 120}, Preempt{Yes: true})
	one.Together = []string{"db"}
	sc := newScene(t, 3, doc(one, two)).on("web=n3 db=n3", ReasonLost)
	sc.want("web=n2:preempt db=n2:preempt")
	sc.adjust("n2", "db", -30)
	sc.want("web=n3:check-failed db=n3:check-failed")
	sc.on("web=n1", ReasonLost)
	sc.adjust("n2", "db", 0)
	sc.want("web=n2:preempt db=n2:together")
	sc.adjust("n2", "db", -30)
	sc.want("web=n3:check-failed db=n3:check-failed")
	// Apart from its set for now, a group is not moved about for its own sake.
	sc.failing("web", "n3")
	sc.failing("db", "n1", "n2")
	sc.want("web=n1:check-failed")
	sc.adjust("n1", "web", -150)
	sc.want("")
}

// While half of a plan is under way only what must be moved is.
func TestPending(t *testing.T) {
	one := preferring("web", "10.0.0.1/24", map[string]uint8{"n1": 150}, Preempt{Yes: true})
	sc := newScene(t, 2, doc(one, db)).on("web=n2 db=n2", ReasonLost)
	sc.v.Pending = true
	sc.want("")
	sc.node("n2", func(n *NodeView) { n.Unfit = map[string]bool{"db": true} })
	sc.want("db=n1:owner-unfit")
	sc.v.Pending = false
	sc.want("web=n1:preempt")
}

func BenchmarkPlace(b *testing.B) {
	for _, placement := range []Placement{PlacementLeader, PlacementPriority, PlacementSpread} {
		b.Run(placement.String(), func(b *testing.B) {
			s := &State{Cluster: ClusterID{9}, Nodes: map[InstanceID]Node{}, Assignments: map[string]Assignment{}, Document: doc(spread(1000, Preempt{Yes: true})...)}
			v := View{Leader: InstanceID{1}, Nodes: map[InstanceID]NodeView{}}
			for i := range 7 {
				n := node(InstanceID{byte(i + 1)}, fmt.Sprintf("n%d", i+1), Member)
				s.Nodes[n.ID], v.Nodes[n.ID] = n, NodeView{Alive: true}
			}
			for i := range s.Document.Groups {
				g := &s.Document.Groups[i]
				g.Placement = placement
				s.Assignments[g.Name] = Assignment{Owner: InstanceID{byte(1 + i%7)}, Epoch: uint64(i + 1), Reason: ReasonLost}
			}
			b.Run("well", func(b *testing.B) {
				for b.Loop() {
					Place(s, v)
				}
			})
			b.Run("one-lost", func(b *testing.B) {
				v.Nodes[InstanceID{7}] = NodeView{}
				for b.Loop() {
					Place(s, v)
				}
			})
			b.Run("all-on-one", func(b *testing.B) {
				v.Nodes[InstanceID{7}] = NodeView{Alive: true}
				for name, a := range s.Assignments {
					a.Owner = InstanceID{2}
					s.Assignments[name] = a
				}
				for b.Loop() {
					Place(s, v)
				}
			})
		})
	}
}
