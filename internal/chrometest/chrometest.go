// Package chrometest drives a headless Chromium for tests, over the pipe of the DevTools protocol
// (--remote-debugging-pipe, https://chromedevtools.github.io/devtools-protocol/): messages are JSON,
// each ended by a zero byte. It needs no module of its own.
package chrometest

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// answerTimeout bounds one command; only a browser that hangs takes so long.
const answerTimeout = time.Minute

// Browser is a running browser. It ends with the test.
type Browser struct {
	t     testing.TB
	write io.WriteCloser

	mu      sync.Mutex // guards what follows
	next    int
	waiting map[int]chan message
	err     error // why nothing more is answered
}

type message struct {
	ID     int             `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params any             `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
	Session string `json:"sessionId,omitempty"`
}

// Required is the environment variable that makes a machine without Chromium fail the tests instead of
// leaving out those that drive it. It is set where nothing may be left out.
const Required = "CHROMIUM_REQUIRED"

// Start starts a browser. Without Chromium on the machine the test is left out and says how to get it, or
// fails where [Required] is set.
func Start(t testing.TB) *Browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		const missing = "there is no Chromium on this machine, which this test drives; install the package chromium"
		if os.Getenv(Required) != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	fromUs, toBrowser, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromBrowser, toUs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	profile, err := os.MkdirTemp("", "lodestone-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio",
		"--remote-debugging-pipe", "--user-data-dir="+filepath.Join(profile, "profile"), "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+profile)
	cmd.ExtraFiles = []*os.File{fromUs, toUs} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	fromUs.Close()
	toUs.Close()
	b := &Browser{t: t, write: toBrowser, waiting: map[int]chan message{}}
	ended := make(chan struct{})
	go func() { defer close(ended); b.read(fromBrowser) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		toBrowser.Close()
		<-ended
		fromBrowser.Close()
		// The browser's own helpers may be writing for a moment longer.
		for range 50 {
			if os.RemoveAll(profile) == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return b
}

// read hands answers to those who wait for them, until the browser is gone.
func (b *Browser) read(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes(0)
		var m message
		if err == nil {
			err = json.Unmarshal(line[:len(line)-1], &m)
		}
		b.mu.Lock()
		if err != nil {
			b.err = fmt.Errorf("the browser is gone: %w", err)
			for _, ch := range b.waiting {
				close(ch)
			}
			b.waiting = nil
			b.mu.Unlock()
			return
		}
		if ch := b.waiting[m.ID]; ch != nil && m.ID != 0 {
			delete(b.waiting, m.ID)
			ch <- m
		}
		b.mu.Unlock()
	}
}

// call sends one command and decodes its result into out, which may be nil.
func (b *Browser) call(session, method string, params, out any) error {
	b.mu.Lock()
	if b.err != nil {
		b.mu.Unlock()
		return b.err
	}
	b.next++
	id, ch := b.next, make(chan message, 1)
	b.waiting[id] = ch
	data, err := json.Marshal(message{ID: id, Method: method, Params: params, Session: session})
	if err == nil {
		_, err = b.write.Write(append(data, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case m, ok := <-ch:
		switch {
		case !ok:
			return b.err
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case out != nil:
			return json.Unmarshal(m.Result, out)
		}
		return nil
	case <-time.After(answerTimeout):
		return fmt.Errorf("%s: no answer within %v", method, answerTimeout)
	}
}

type object = map[string]any

// Page is one tab.
type Page struct {
	b       *Browser
	session string
}

// Page opens a tab of its own, with storage of its own when private.
func (b *Browser) Page(private bool) *Page {
	b.t.Helper()
	params := object{"url": "about:blank"}
	if private {
		var context struct {
			ID string `json:"browserContextId"`
		}
		b.must(b.call("", "Target.createBrowserContext", object{}, &context))
		params["browserContextId"] = context.ID
	}
	var target struct {
		ID string `json:"targetId"`
	}
	b.must(b.call("", "Target.createTarget", params, &target))
	var session struct {
		ID string `json:"sessionId"`
	}
	b.must(b.call("", "Target.attachToTarget", object{"targetId": target.ID, "flatten": true}, &session))
	p := &Page{b, session.ID}
	p.Do("Page.enable", object{})
	p.Do("Network.enable", object{})
	return p
}

func (b *Browser) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// Do carries out one command of the protocol.
func (p *Page) Do(method string, params any) {
	p.b.t.Helper()
	p.b.must(p.b.call(p.session, method, params, nil))
}

// Open goes to an address and waits until it is loaded.
func (p *Page) Open(url string) {
	p.b.t.Helper()
	var result struct{ ErrorText string }
	p.b.must(p.b.call(p.session, "Page.navigate", object{"url": url}, &result))
	if result.ErrorText != "" {
		p.b.t.Fatalf("open %s: %s", url, result.ErrorText)
	}
	p.Wait(`document.readyState === "complete"`)
}

// Eval returns the value of an expression; promises are awaited.
func (p *Page) Eval(expression string) any {
	p.b.t.Helper()
	v, err := p.eval(expression)
	p.b.must(err)
	return v
}

func (p *Page) eval(expression string) (any, error) {
	var result struct {
		Result    struct{ Value any }
		Exception *struct {
			Text      string
			Exception struct{ Description string }
		} `json:"exceptionDetails"`
	}
	if err := p.b.call(p.session, "Runtime.evaluate", object{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true}, &result); err != nil {
		return nil, err
	}
	if e := result.Exception; e != nil {
		return nil, fmt.Errorf("%s: %s %s", expression, e.Text, e.Exception.Description)
	}
	return result.Result.Value, nil
}

// Wait returns when an expression is true in whatever document the page then shows.
func (p *Page) Wait(expression string) {
	p.b.t.Helper()
	deadline := time.Now().Add(answerTimeout)
	for {
		v, err := p.eval("(() => { try { return !!(" + expression + ") } catch { return false } })()")
		if ok, _ := v.(bool); ok && err == nil {
			return
		}
		if time.Now().After(deadline) {
			text, _ := p.eval("document.documentElement.outerHTML")
			p.b.t.Fatalf("never true: %s (%v)\n%v", expression, err, text)
		}
		time.Sleep(10 * time.Millisecond) // another process: there is nothing to be woken by
	}
}

// Offline cuts the page off from the network, or lets it on again.
func (p *Page) Offline(off bool) {
	p.b.t.Helper()
	p.Do("Network.emulateNetworkConditions", object{"offline": off, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})
}

// Script lets pages run scripts, or not.
func (p *Page) Script(on bool) {
	p.b.t.Helper()
	p.Do("Emulation.setScriptExecutionDisabled", object{"value": !on})
}

// Screenshot writes what the page shows to a PNG file in dir, and nothing when dir is empty.
func (p *Page) Screenshot(dir, name string) {
	p.b.t.Helper()
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	p.b.must(p.b.call(p.session, "Page.captureScreenshot", object{"format": "png"}, &shot))
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	p.b.must(err)
	p.b.must(os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600))
}
