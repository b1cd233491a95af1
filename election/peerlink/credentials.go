package peerlink

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/quorate/quorate/fsm"
)

// The certificates that nodes make for themselves are valid from 1970 to 2100. A
// node must be able to join while its wall clock is wrong: a board without a
// battery starts in 1970, and time synchronisation may itself need a virtual IP.
// Short validity would buy nothing, as whoever has the key can make a new one.
var (
	validFrom  = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	validUntil = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// instanceURN begins the URI in a leaf certificate that names the instance.
const instanceURN = "urn:quorate:instance:"

// Credentials are a node's TLS identity together with the authority that it
// accepts. The zero value is not usable.
type Credentials struct {
	leaf      tls.Certificate
	roots     *x509.CertPool
	authority string // what a stranger has another one of, for error texts
}

// Credentials returns a fresh TLS identity of instance id under the cluster's own
// authority, which every holder of the key can derive. Nothing is written to disk.
func (k Key) Credentials(id fsm.InstanceID) (Credentials, error) {
	ca, caKey, err := k.ca()
	if err != nil {
		return Credentials{}, fmt.Errorf("make the certificate authority: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Credentials{}, fmt.Errorf("make this node's TLS key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Credentials{}, fmt.Errorf("make this node's certificate serial: %w", err)
	}
	leaf, err := sign(&x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "quorate node " + id.Short()},
		NotBefore:    validFrom,
		NotAfter:     validUntil,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{{Scheme: "urn", Opaque: strings.TrimPrefix(instanceURN, "urn:") + id.String()}},
	}, ca, public, caKey)
	if err != nil {
		return Credentials{}, fmt.Errorf("make this node's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return Credentials{
		leaf:      tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: private, Leaf: leaf},
		roots:     roots,
		authority: "key_file",
	}, nil
}

// ca derives the authority: the same on every node, to the last bit.
func (k Key) ca() (*x509.Certificate, ed25519.PrivateKey, error) {
	key := ed25519.NewKeyFromSeed(k.derive("quorate 1 certificate authority", ed25519.SeedSize))
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "quorate cluster"},
		NotBefore:             validFrom,
		NotAfter:              validUntil,
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	cert, err := sign(template, template, key.Public(), key)
	return cert, key, err
}

func sign(template, parent *x509.Certificate, public any, by ed25519.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// TLSFiles are paths of PEM files with a TLS identity that somebody else issued.
// The authority must be the cluster's own: every certificate that it signed for
// both client and server use is accepted as a node, whatever names it bears.
type TLSFiles struct{ CA, Cert, Key string }

// Credentials reads and checks the files.
func (t TLSFiles) Credentials() (Credentials, error) {
	caText, err := os.ReadFile(t.CA)
	if err != nil {
		return Credentials{}, fmt.Errorf("read tls.ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caText) {
		return Credentials{}, fmt.Errorf("tls.ca %s has no PEM certificate", t.CA)
	}
	certText, err := os.ReadFile(t.Cert)
	if err != nil {
		return Credentials{}, fmt.Errorf("read tls.cert: %w", err)
	}
	keyText, err := readSecret(t.Key, "tls.key")
	if err != nil {
		return Credentials{}, err
	}
	leaf, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return Credentials{}, fmt.Errorf("tls.cert %s with tls.key %s: %w", t.Cert, t.Key, err)
	}
	c := Credentials{leaf: leaf, roots: roots, authority: "tls.ca"}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := c.verify(leaf.Leaf, leaf.Certificate[1:], use); err != nil {
			return Credentials{}, fmt.Errorf("tls.cert %s would be refused by the other nodes "+
				"(it must be signed by tls.ca %s, be valid now, and allow client and server use): %w", t.Cert, t.CA, err)
		}
	}
	return c, nil
}

// config returns the TLS settings of one side. Names in certificates do not matter
// here, nodes are known by instance id: so the library's own check, which insists
// on a host name, is replaced by ours, which checks the chain.
func (c Credentials) config(server bool, protocols ...string) *tls.Config {
	use := x509.ExtKeyUsageServerAuth // what the other side must be
	if server {
		use = x509.ExtKeyUsageClientAuth
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{c.leaf},
		NextProtos:             protocols,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection below does it
		SessionTicketsDisabled: true, // a resumed session would not verify the certificate again
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 { // ClientAuth sees to it; a slip there must not open the door
				return &Refused{Reason: BadCertificate, Detail: "it has none"}
			}
			var chain [][]byte
			for _, cert := range cs.PeerCertificates[1:] {
				chain = append(chain, cert.Raw)
			}
			return c.verify(cs.PeerCertificates[0], chain, use)
		},
	}
}

// verify returns nil or a *Refused.
func (c Credentials) verify(leaf *x509.Certificate, chain [][]byte, use x509.ExtKeyUsage) error {
	between := x509.NewCertPool()
	for _, der := range chain {
		if cert, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(cert)
		}
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: c.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use}})
	var stranger x509.UnknownAuthorityError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &stranger):
		return &Refused{Reason: OtherKey, Detail: "its certificate does not come from this node's " + c.authority + ": it has another one"}
	}
	return &Refused{Reason: BadCertificate, Detail: err.Error()}
}

// certified returns the instance that the peer's certificate names, and whether
// it names one: certificates from TLSFiles need not.
func certified(cs tls.ConnectionState) (fsm.InstanceID, bool) {
	for _, u := range cs.PeerCertificates[0].URIs {
		if rest, ok := strings.CutPrefix(u.String(), instanceURN); ok {
			id, err := fsm.ParseInstanceID(rest)
			return id, err == nil
		}
	}
	return fsm.InstanceID{}, false
}
