//go:build !linux

package main

// volatileDisk knows nothing: only Linux is asked.
func volatileDisk(string) string { return "" }
