package connectortest

import (
	"io"
	"log"
)

// quiet swallows what a server logs about handshakes that are meant to fail.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
