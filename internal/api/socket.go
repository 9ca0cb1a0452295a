package api

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// SocketName is the name of the worker's socket in the data directory.
const SocketName = "lodestone.sock"

// maxSocketPath is what fits everywhere: 104 bytes on the BSDs and macOS, 108 on Linux, one of them
// for the zero at the end.
const maxSocketPath = 103

// SocketPath returns where the worker of a data directory listens. A path that is too long for the
// system moves to the runtime directory, and lodestone.sock.path in the data directory names it; it is
// empty while no worker listens there. A note that came along with a copy of another directory is not
// believed: it would lead to the other one's worker.
func SocketPath(dir string) (path string, moved bool, err error) {
	abs, err := filepath.Abs(filepath.Join(dir, SocketName))
	if err != nil {
		return "", false, err
	}
	if len(abs) <= maxSocketPath {
		return abs, false, nil
	}
	if b, err := os.ReadFile(abs + ".path"); err == nil {
		p := strings.TrimSpace(string(b))
		if len(p) <= maxSocketPath && filepath.Base(p) == SocketName && strings.HasPrefix(filepath.Base(filepath.Dir(p)), privateName(abs)) {
			return p, true, nil
		}
	}
	return "", true, nil
}

// privateName is how the name of the directory for a socket that moved begins. It goes with the place
// of the data directory.
func privateName(abs string) string {
	sum := sha256.Sum256([]byte(abs))
	return fmt.Sprintf("lodestone-%x-", sum[:4])
}

// Listen opens the socket of a data directory, mode 0600, taking the place of one that a worker
// left behind when it was killed. The store's lock makes sure that there is no other worker. What it
// made is gone again when the listener is closed.
func Listen(dir string) (net.Listener, error) {
	path, moved, err := SocketPath(dir)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	var made []string // to be removed again, in this order
	if moved {
		if path != "" { // of a worker that was killed
			_ = os.Remove(path)
			_ = os.Remove(filepath.Dir(path))
		}
		abs, err := filepath.Abs(filepath.Join(dir, SocketName))
		if err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
		if path, err = privatePath(abs); err != nil {
			return nil, err
		}
		note := abs + ".path"
		made = []string{note, filepath.Dir(path)}
		if err := os.WriteFile(note, []byte(path+"\n"), 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("socket: %w", err), os.Remove(filepath.Dir(path)))
		}
	} else if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	bare, err := net.Listen("unix", path)
	l := &listener{bare, made}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.clean())
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l, nil
}

// privatePath makes a directory of our own for a socket, where its path is short enough.
func privatePath(abs string) (string, error) {
	const longestRandom = 10 // digits that os.MkdirTemp adds
	for _, run := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"} {
		if run == "" || len(filepath.Join(run, privateName(abs), SocketName))+longestRandom > maxSocketPath {
			continue
		}
		private, err := os.MkdirTemp(run, privateName(abs)) // mode 0700
		if err != nil {
			return "", fmt.Errorf("socket: %w", err)
		}
		return filepath.Join(private, SocketName), nil
	}
	return "", errors.New("socket: the path of the data directory is too long for a socket, and so is that of the temporary directory; choose a shorter one with --data")
}

// listener removes what was made for it.
type listener struct {
	net.Listener
	made []string
}

// Close stops listening, which removes the socket, and removes what was made beside it.
func (l *listener) Close() error {
	return errors.Join(l.Listener.Close(), l.clean())
}

func (l *listener) clean() (err error) {
	for _, path := range l.made {
		if e := os.Remove(path); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	l.made = nil
	return err
}
