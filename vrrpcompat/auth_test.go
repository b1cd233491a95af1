package vrrpcompat

import (
	"fmt"
	"strings"
	"testing"
)

func TestSimplePassword(t *testing.T) {
	for password, want := range map[string][8]byte{
		"a":        {'a'},
		"12345678": {'1', '2', '3', '4', '5', '6', '7', '8'},
	} {
		if a, err := SimplePassword(password); err != nil || a != (Auth{AuthSimple, want}) {
			t.Errorf("SimplePassword(%q) = %v %v, %v", password, a.Type, a.Data, err)
		}
	}
	for _, password := range []string{"", "123456789"} {
		if a, err := SimplePassword(password); err == nil || a != (Auth{}) || !strings.Contains(err.Error(), "1 to 8") {
			t.Errorf("SimplePassword of %d bytes = %v, %v; want an error that names the bound", len(password), a, err)
		}
	}
}

// Whatever is printed of an advert, or of its refusal, the password is not in it.
func TestPasswordIsNotPrinted(t *testing.T) {
	secret, err := SimplePassword("tell-no1")
	if err != nil {
		t.Fatal(err)
	}
	a := Advert{Version: V2, VRID: 7, Auth: secret}
	v := Virtual{VRID: 7, Version: V2}
	reject := v.Refuse(a, byHand[0].meta.Source, byHand[0].meta.Destination)
	for _, text := range []string{fmt.Sprintf("%v", a), fmt.Sprintf("%+v", a), fmt.Sprintf("%#v", a), fmt.Sprint(secret), reject.Error(), fmt.Sprintf("%#v", *reject)} {
		if strings.Contains(text, "tell") || strings.Contains(text, "116 101 108 108") || strings.Contains(text, "0x74, 0x65") {
			t.Errorf("the password is in %s", text)
		}
	}
}

func TestAuthTypeNames(t *testing.T) {
	for at, want := range map[AuthType]string{AuthNone: "none", AuthSimple: "simple password", AuthAH: "ah", 9: "auth(9)"} {
		if got := at.String(); got != want {
			t.Errorf("%d prints %q, want %q", uint8(at), got, want)
		}
	}
}
