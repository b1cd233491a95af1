package config

import (
	"os"
	"regexp"
	"testing"
)

// TestKeysAreShown: what can be written is in the example that has every key, and in
// the reference.
func TestKeysAreShown(t *testing.T) {
	example, err := os.ReadFile("../../deploy/examples/all-keys.yaml")
	if err != nil {
		t.Fatal(err)
	}
	reference, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	schemas := map[string]schema{
		"": topSchema, "tls": tlsSchema, "log": logSchema, "vips": groupSchema, "announce": announceSchema, "vrrp": vrrpSchema, "unicast": peerSchema,
		"track_interfaces": trackSchema, "hooks": hooksSchema, "checks": checkSchema, "http": httpSchema, "command": commandSchema, "file": fileSchema,
	}
	for section, s := range schemas {
		for _, key := range s.keys {
			if !regexp.MustCompile(`(?m)(^|[ {])` + key + `:`).Match(example) {
				t.Errorf("all-keys.yaml has no %s of section %q", key, section)
			}
			if !regexp.MustCompile("[`.{ ]" + key + "[`.:,}]").Match(reference) {
				t.Errorf("configuration.md has no %s of section %q", key, section)
			}
		}
	}
}
