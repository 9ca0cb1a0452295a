package boltstore

// NoSync has commits not wait for the disk, for histories that are about something else.
func (s *Store) NoSync() { s.db.Load().NoSync = true }
