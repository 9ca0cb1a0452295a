package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
)

// page is what a browser without script is shown. Everything in it is escaped, and none of it comes
// from the request.
type page struct {
	Title    string
	Heading  string // the form's title
	Text     string
	Faults   []fieldFault
	Link     string // of the asset; "" none
	LinkText string
	Action   *pageAction // a button; nil: none
}

// pageAction is a button that posts to where the page came from.
type pageAction struct {
	Button string
	Fields map[string]string // hidden inputs
}

const pageStyle = `body{font:1.05rem/1.5 system-ui,sans-serif;color:#1c1f23;background:#f6f7f8;margin:0}
main{max-width:34rem;margin:12vh auto;padding:2rem;background:#fff;border:1px solid #d9dde1;border-radius:.5rem}
h1{font-size:1.4rem;margin:0 0 .75rem}p.form{color:#5a6169;margin:0 0 .25rem}ul{padding-left:1.2rem}
a.button,button{display:inline-block;font:inherit;padding:.6rem 1.1rem;border:0;border-radius:.35rem;background:#1f5fbf;color:#fff;text-decoration:none;cursor:pointer}
a.button:focus,button:focus{outline:3px solid #9cc0f5}
@media(prefers-color-scheme:dark){body{background:#16181b;color:#e8eaed}main{background:#1f2226;border-color:#3a3f45}p.form{color:#a5acb3}}`

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{{.Title}}</title>
<style>` + pageStyle + `</style>
</head>
<body>
<main>
{{with .Heading}}<p class="form">{{.}}</p>
{{end}}<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{with .Faults}}<ul>
{{range .}}<li><strong>{{.Field}}</strong>: {{.Message}}</li>
{{end}}</ul>
{{end}}{{with .Link}}<p><a class="button" href="{{.}}" rel="noreferrer">{{$.LinkText}}</a></p>
{{end}}{{with .Action}}<form method="post">
{{range $name, $value := .Fields}}<input type="hidden" name="{{$name}}" value="{{$value}}">
{{end}}<button>{{.Button}}</button>
</form>
{{end}}</main>
</body>
</html>
`))

// pagePolicy lets a page of ours show its own style and post to us, and nothing else.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

func writePage(w http.ResponseWriter, status int, p page) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = pageTemplate.Execute(w, p) // the reader is gone; there is nobody to tell
}
