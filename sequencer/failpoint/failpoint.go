// Package failpoint names the moments at which a crash is most likely to lose or double something:
// around every commit, acknowledgement, call, publish and change of the rules.
//
// Built with the tag failpoints, a process kills itself without warning when it comes to the point that
// LODESTONE_FAILPOINT names, once the file that LODESTONE_FAILPOINT_ARMED names exists. Without the tag
// [Hit] is empty and costs nothing. `go test -tags failpoints ./cmd/lodestone -run FaultMatrix` crashes
// the worker at each of them; docs/fault-matrix.md keeps what came of it.
package failpoint

// Points lists every point that is hit somewhere.
var Points = []string{
	IntakeDecided, IntakeCommitted, CommitBegun, CommitWritten, CommitDone, BeforeIntent, AfterIntent, AfterCall, AfterOutcome,
	BeforeLookup, AfterLookup, AfterSettled, BeforePublish, AfterPublish, CursorKept, CompactCopied, CompactRenamed, CompactDone,
	RulesCompiled, RulesKept, RulesInForce, StopActed, StopClosed,
}

// The points. A name says what has just happened.
const (
	IntakeDecided   = "intake.decided"   // a batch was read from the stream and is about to be committed
	IntakeCommitted = "intake.committed" // it is committed with its watermark
	CommitBegun     = "commit.begun"     // a transaction is about to begin
	CommitWritten   = "commit.written"   // everything is put, nothing is synced
	CommitDone      = "commit.done"      // it is synced, and nobody was told
	BeforeIntent    = "intent.before"    // the gate was passed
	AfterIntent     = "intent.after"     // the intent is stored, the call not made
	AfterCall       = "call.after"       // the provider answered, nothing of it is stored
	AfterOutcome    = "outcome.after"    // the outcome is stored
	BeforeLookup    = "lookup.before"    // an unknown outcome is about to be looked up
	AfterLookup     = "lookup.after"     // the provider answered, nothing of it is stored
	AfterSettled    = "settled.after"    // what the look-up said is stored
	BeforePublish   = "publish.before"   // events are about to be published
	AfterPublish    = "publish.after"    // they are acknowledged, the position is not stored
	CursorKept      = "cursor.kept"      // the position is stored
	CompactCopied   = "compact.copied"   // the new file is complete, under another name
	CompactRenamed  = "compact.renamed"  // it has the store's name, the directory is not synced
	CompactDone     = "compact.done"     // it is in use
	RulesCompiled   = "rules.compiled"   // changed rule files are good, nothing of them is stored
	RulesKept       = "rules.kept"       // they are stored, decisions are still made with those before
	RulesInForce    = "rules.inforce"    // decisions are made with them
	StopActed       = "stop.acted"       // everything that acts has ended
	StopClosed      = "stop.closed"      // everything is closed
)
