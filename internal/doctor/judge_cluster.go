package doctor

import "slices"

// cluster judges what the node that asked knows of the cluster.
func (j *judge) cluster(v View) {
	voters, alive := 0, 0
	for _, m := range v.Members {
		if m.Voter {
			voters++
			if m.Alive {
				alive++
			}
		}
	}
	switch {
	case !v.Quorum:
		j.find(Broken, "quorum", "", "", "", "%s hears %d of %d voters, which is no majority", j.in.Node, alive, voters)
	case v.Leader == "":
		j.find(Broken, "quorum", "", "", "", "there is no leader: nothing can be moved")
	default:
		j.find(OK, "quorum", "", "", "", "%d of %d voters are heard, the leader is %s", alive, voters, v.Leader)
	}
	switch {
	case voters <= 2:
		j.find(Broken, "voters", "", "", "", "there are %d voters: with one lost there is no majority", voters)
	case voters%2 == 0:
		j.find(Note, "voters", "", "", "", "there are %d voters: no more may be lost than with %d", voters, voters-1)
	default:
		j.find(OK, "voters", "", "", "", "there are %d voters: %d may be lost", voters, (voters-1)/2)
	}
	j.silent(v, voters, alive)
	var held, movable []string
	for _, g := range v.Groups {
		if j.held(g) {
			held = append(held, g.Name)
		}
		if j.movable(v, g) {
			movable = append(movable, g.Name)
		}
	}
	if len(held) > 0 {
		j.find(OK, "group", "", "", "", "held by their owners: %s", list(held))
	}
	if len(movable) > 0 {
		j.find(OK, "standby", "", "", "", "another node may take %s", list(movable))
	}
	j.versions()
}

// silent names the nodes that are not heard, or that did not answer.
func (j *judge) silent(v View, voters, alive int) {
	for _, a := range j.in.Answers {
		if a.Facts != nil {
			continue
		}
		severity := Warning
		i := slices.IndexFunc(v.Members, func(m Member) bool { return m.Instance == a.Instance })
		// Broken where the next loss of a voter leaves no majority.
		if i >= 0 && v.Members[i].Voter && (v.Members[i].Alive || alive-1 <= voters/2) {
			severity = Broken
		}
		j.find(severity, "node-silent", a.Name, "", "", "%s does not answer %s: %s", a.Name, j.in.Node, a.Problem)
	}
}

// held judges whether a group's owner answers for it.
func (j *judge) held(g Group) bool {
	well := true
	switch {
	case g.Owner == "":
		well = false
		j.find(Broken, "group", "", "", "", "%s has no owner", g.Name)
	case !g.Open && g.State != "active":
		well = false
		j.find(Broken, "group", "", "", "", "%s: its owner %s does not answer for it", g.Name, g.Owner)
	}
	if g.Problem != "" {
		well = false
		j.find(Warning, "group", "", "", "", "%s: %s", g.Name, g.Problem)
	}
	return well
}

// movable judges whether somebody could take a group.
func (j *judge) movable(v View, g Group) bool {
	for _, m := range v.Members {
		if m.Role == "member" && m.Alive && !m.Drained && m.Name != g.Owner && !slices.Contains(g.Barred, m.Name) {
			return true
		}
	}
	j.find(Broken, "standby", "", "", "", "no other node may take %s: each is drained, not heard, a witness, or of priority 0", g.Name)
	return false
}

// versions compares what should be the same everywhere.
func (j *judge) versions() {
	if len(j.facts) == 0 {
		return
	}
	first := j.facts[0]
	for _, f := range j.facts[1:] {
		if f.Version != first.Version {
			j.find(Warning, "versions", f.Name, "", "", "%s runs %s, and %s runs %s", f.Name, f.Version, first.Name, first.Version)
		}
		if f.LeaseMS != first.LeaseMS {
			j.find(Note, "lease-differs", f.Name, "", "", "%s has a lease of %s, and %s one of %s", f.Name, millis(f.LeaseMS), first.Name, millis(first.LeaseMS))
		}
	}
}
