package vrrpcompat

import "fmt"

// An AuthType is the authentication type byte of version 2 (RFC 2338, section 5.3.6). Its numbers are those of the wire,
// where zero is valid and means none; every other value than these three is refused.
type AuthType uint8

const (
	// AuthNone is all that RFC 3768 left.
	AuthNone AuthType = 0
	// AuthSimple is a password in clear text. It protects from mistakes, not from anybody who can listen.
	AuthSimple AuthType = 1
	// AuthAH says that an IPsec authentication header went before. It can be received and not be sent.
	AuthAH AuthType = 2
)

// String returns "none", "simple password" or "ah".
func (t AuthType) String() string {
	switch t {
	case AuthNone:
		return "none"
	case AuthSimple:
		return "simple password"
	case AuthAH:
		return "ah"
	}
	return fmt.Sprintf("auth(%d)", uint8(t))
}

// Auth is the authentication of a version 2 advert. The zero value is none; values can be compared.
type Auth struct {
	Type AuthType
	// Data is the password with zeros after it, and all zero for AuthNone.
	Data [AuthLen]byte
}

// String names the type and keeps the password to itself.
func (a Auth) String() string { return a.Type.String() }

// GoString keeps the password out of %#v too.
func (a Auth) GoString() string { return "vrrpcompat.Auth(" + a.Type.String() + ")" }

// SimplePassword returns the authentication for a password of 1 to AuthLen bytes. A longer one is an error, although
// keepalived cuts it off without a word: what was not sent protects nothing.
func SimplePassword(password string) (Auth, error) {
	if n := len(password); n == 0 || n > AuthLen {
		return Auth{}, fmt.Errorf("vrrp password of %d bytes: must be 1 to %d; keepalived sends only the first %d of a longer one, so write those", n, AuthLen, AuthLen)
	}
	a := Auth{Type: AuthSimple}
	copy(a.Data[:], password)
	return a, nil
}
