package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// trustFiles are the files that say whom a connection trusts, and who it is; "" = the system's authorities, and
// nobody.
type trustFiles struct{ CA, Cert, Key string }

func (f trustFiles) any() bool { return f != trustFiles{} }

// config is what TLS is spoken with. The name is that of each server.
func (f trustFiles) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pem, err := readBounded(f.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New(f.CA + " holds no certificate in PEM")
		}
	}
	if f.Cert == "" && f.Key == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, errors.New(f.Cert + " and " + f.Key + " are not a certificate and its key in PEM")
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// trustSettings declare the files of one server, named by the beginning of its settings' names.
func trustSettings(prefix, server string, of func(*Settings) *trustFiles) []setting {
	return []setting{
		{prefix + "_CA_FILE", "", false, "A file (PEM) of the certificate authorities that " + server + "'s certificate may come from. Empty: the system's.",
			existing("a file", false, func(s *Settings) *string { return &of(s).CA })},
		{prefix + "_CERT_FILE", "", false, "A file (PEM) with the gateway's own certificate for " + server + ", where it asks for one. Empty: none.",
			existing("a file", false, func(s *Settings) *string { return &of(s).Cert })},
		{prefix + "_KEY_FILE", "", false, "The file (PEM) with that certificate's key.",
			existing("a file", false, func(s *Settings) *string { return &of(s).Key })},
	}
}

// trustContradictions says what is wrong with the files of one server.
func trustContradictions(prefix, way string, f trustFiles, encrypted bool) (problems []string) {
	switch _, err := f.config(); {
	case !f.any():
	case !encrypted:
		problems = append(problems, prefix+"_CA_FILE: it and its like go with "+way+", which is not set")
	case (f.Cert == "") != (f.Key == ""):
		problems = append(problems, prefix+"_CERT_FILE: it and "+prefix+"_KEY_FILE go together")
	case err != nil:
		problems = append(problems, prefix+"_CA_FILE, "+prefix+"_CERT_FILE, "+prefix+"_KEY_FILE: "+oneLine(err.Error()))
	}
	return problems
}
