package limit

// Kept is how many holders memory keeps.
func Kept(m *Memory) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.known)
}
