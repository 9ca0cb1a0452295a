package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"
)

// admin mounts the paths by which the sandbox is watched and steered.
func (s *Server) admin() {
	get := func(path string, v func() any) {
		s.mux.HandleFunc("GET /_sandbox/"+path, func(w http.ResponseWriter, _ *http.Request) {
			send(w, reply{status: http.StatusOK, body: v()})
		})
	}
	s.mux.HandleFunc("GET /_sandbox/{$}", s.page)
	get("received", func() any { return s.Received() })
	get("effects", func() any { return s.Effects() })
	get("violations", func() any { return s.Violations() })
	get("faults", func() any { return s.Faults() })
	get("settings", func() any { return s.Settings().wire() })

	s.mux.HandleFunc("POST /_sandbox/faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		err := readJSON(w, r, &f)
		if err == nil {
			err = s.Fault(f)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		send(w, reply{status: http.StatusCreated, body: s.Faults()})
	})
	s.mux.HandleFunc("DELETE /_sandbox/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.Clear()
		send(w, reply{status: http.StatusOK, body: s.Faults()})
	})
	s.mux.HandleFunc("POST /_sandbox/settings", func(w http.ResponseWriter, r *http.Request) {
		in := s.Settings().wire()
		err := readJSON(w, r, &in)
		var settings Settings
		if err == nil {
			settings, err = in.settings()
		}
		if err != nil {
			refuse(w, err)
			return
		}
		s.Set(settings)
		send(w, reply{status: http.StatusOK, body: s.Settings().wire()})
	})
	s.mux.HandleFunc("POST /_sandbox/reset", func(w http.ResponseWriter, _ *http.Request) {
		s.Reset()
		send(w, reply{status: http.StatusOK, body: map[string]bool{"reset": true}})
	})
}

// settingsJSON is how settings look from outside.
type settingsJSON struct {
	Duplicates   Duplicates `json:"duplicates"`
	VisibleAfter any        `json:"visible_after"` // a text such as "2s", or seconds
	Hidden       bool       `json:"hidden"`
}

func (s Settings) wire() settingsJSON {
	return settingsJSON{s.Duplicates, s.VisibleAfter.String(), s.Hidden}
}

func (j settingsJSON) settings() (Settings, error) {
	switch j.Duplicates {
	case DuplicatesPass, DuplicatesBlock, DuplicatesRefuse:
	default:
		return Settings{}, errors.New("duplicates must be pass, block or refuse")
	}
	after, err := duration(j.VisibleAfter)
	if err != nil {
		return Settings{}, errors.New("visible_after must be seconds or a text such as 2s")
	}
	return Settings{Duplicates: j.Duplicates, VisibleAfter: min(after, 365*24*time.Hour), Hidden: j.Hidden}, nil
}

// readJSON reads one JSON value. It asks for the content type, because a page in a browser cannot send
// that one without being allowed to.
func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return errors.New("send it as Content-Type: application/json")
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more than one JSON value")
	}
	return nil
}

// refuse answers with problem details (RFC 9457).
func refuse(w http.ResponseWriter, err error) {
	body, _ := json.Marshal(map[string]any{"title": "Bad Request", "status": http.StatusBadRequest, "detail": err.Error()})
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write(body)
}
