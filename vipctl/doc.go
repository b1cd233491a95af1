// Package vipctl builds what a host sends to make a virtual IP its own on the
// LAN, and says when to send it.
//
// It is pure: frames go out as bytes, instants as offsets, and received frames
// come in as bytes. Sending, receiving and the kernel's addresses are package
// kernel's; the guard against answering too long is package fence's.
package vipctl
