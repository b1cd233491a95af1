package fence

import (
	"bytes"
	_ "embed" // the compiled program
	"fmt"

	"github.com/cilium/ebpf"
)

//go:generate ./generate.sh

// object is fence.bpf.c, compiled. TestObjectIsCurrent fails when it is not.
//
//go:embed fence.bpf.o
var object []byte

// The sides of a device and the kinds of its frames decide which of the four
// programs it gets.
type direction uint8

const (
	_ direction = iota
	ingress
	egress
)

var directions = [...]direction{ingress, egress}

func (d direction) String() string {
	switch d {
	case ingress:
		return "ingress"
	case egress:
		return "egress"
	default:
		return fmt.Sprintf("direction(%d)", uint8(d))
	}
}

type framing uint8

const (
	_      framing = iota
	framed         // an Ethernet header in front: Ethernet, bridges, VLANs, loopback
	bare           // anything else: read from the network header on
)

// Names in the kernel hold fifteen bytes. The digit is the layout of the maps:
// programs with another digit are not ours to read.
const (
	namePrefix   = "qf1"
	deadlinesMap = "deadlines"
	dropsMap     = "drops"
	maxEntries   = 4096 // of both maps, as in fence.bpf.c
)

var sources = map[direction]map[framing]struct{ source, suffix string }{
	ingress: {framed: {"fence_in_eth", "ie"}, bare: {"fence_in_net", "in"}},
	egress:  {framed: {"fence_out_eth", "oe"}, bare: {"fence_out_net", "on"}},
}

func programName(tag string, d direction, fr framing) string {
	return namePrefix + "_" + tag + "_" + sources[d][fr].suffix
}

func programPrefix(tag string) string { return namePrefix + "_" + tag + "_" }
func deadlinesName(tag string) string { return namePrefix + "d_" + tag }
func dropsName(tag string) string     { return namePrefix + "n_" + tag }

// programs is one copy of the four programs, loaded into the kernel.
type programs struct {
	by  map[direction]map[framing]*ebpf.Program
	ids map[ebpf.ProgramID]bool
}

func (p *programs) close() {
	for _, byFraming := range p.by {
		for _, prog := range byFraming {
			prog.Close()
		}
	}
}

// loaded is what load returns: a copy of the programs, and the maps that they use.
type loaded struct {
	*programs
	deadlines, drops *ebpf.Map
}

// load puts a copy of the programs into the kernel. Maps that are given are used;
// those that are nil are made.
func load(tag string, deadlines, drops *ebpf.Map) (_ *loaded, err error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read the embedded program: %w", err)
	}
	spec.Maps[deadlinesMap].Name = deadlinesName(tag)
	spec.Maps[dropsMap].Name = dropsName(tag)
	for d, byFraming := range sources {
		for fr, s := range byFraming {
			spec.Programs[s.source].Name = programName(tag, d, fr)
		}
	}
	replace := map[string]*ebpf.Map{}
	if deadlines != nil {
		replace[deadlinesMap] = deadlines
	}
	if drops != nil {
		replace[dropsMap] = drops
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, fmt.Errorf("load the fence program: %w", err)
	}
	defer coll.Close() // closes what was not detached from it
	l := &loaded{programs: &programs{
		by:  map[direction]map[framing]*ebpf.Program{ingress: {}, egress: {}},
		ids: map[ebpf.ProgramID]bool{},
	}}
	for d, byFraming := range sources {
		for fr, s := range byFraming {
			prog := coll.DetachProgram(s.source)
			l.by[d][fr] = prog
			info, err := prog.Info()
			if err != nil {
				l.close()
				return nil, fmt.Errorf("read back program %s: %w", s.source, err)
			}
			id, _ := info.ID()
			l.ids[id] = true
		}
	}
	l.deadlines, l.drops = coll.DetachMap(deadlinesMap), coll.DetachMap(dropsMap)
	return l, nil
}
