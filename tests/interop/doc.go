// Package interop puts quorate on one LAN with routers that others have written,
// keepalived and FRR's vrrpd as Debian has them, and judges from outside who is Active.
//
// The judge is a capture at every host's switch port (adverts, and the answers to ARP
// and neighbour discovery): what quorate says of itself decides nothing, except which
// packets it has counted as refused.
package interop
