// Package model holds the lease protocol as a model for Spin (lease.pml). Its test
// searches every state within small bounds for two hosts that answer, and demands them
// when a rule is taken out.
package model
