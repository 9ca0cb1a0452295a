package ruletest

import (
	"encoding/xml"
	"io"
	"time"
)

// JUnit writes results in the XML that CI systems read, one suite a file, in the order of the results.
func JUnit(w io.Writer, results []Result, took time.Duration) error {
	type failure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type testcase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		File    string   `xml:"file,attr"`
		Line    int      `xml:"line,attr"`
		Failure *failure `xml:"failure,omitempty"`
	}
	type suite struct {
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Cases    []testcase `xml:"testcase"`
	}
	doc := struct {
		XMLName  xml.Name `xml:"testsuites"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Time     float64  `xml:"time,attr"`
		Suites   []suite  `xml:"testsuite"`
	}{Tests: len(results), Time: took.Seconds()}
	places := map[string]int{}
	for _, r := range results {
		i, ok := places[r.File]
		if !ok {
			i = len(doc.Suites)
			places[r.File] = i
			doc.Suites = append(doc.Suites, suite{Name: r.File})
		}
		s := &doc.Suites[i]
		c := testcase{Name: r.Name, Class: r.File, File: r.File, Line: r.Line}
		s.Tests++
		if !r.OK {
			c.Failure = &failure{"not as expected", r.Diff}
			s.Failures++
			doc.Failures++
		}
		s.Cases = append(s.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
