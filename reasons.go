package lodestone

// Reason is a word of the closed vocabulary that says why something is as it is. Reasons are safe
// as metric labels.
type Reason string

// Why a submission or signal cannot be used.
const (
	ReasonNotJSON      Reason = "not_json" // also duplicate keys, also not UTF-8
	ReasonNotAnObject  Reason = "not_an_object"
	ReasonBadEnvelope  Reason = "bad_envelope"
	ReasonTooLarge     Reason = "too_large"
	ReasonTooDeep      Reason = "too_deep"
	ReasonUnknownForm  Reason = "unknown_form"
	ReasonNoEmail      Reason = "no_email"
	ReasonBadEmail     Reason = "bad_email"
	ReasonMissingField Reason = "missing_field"
	ReasonBadField     Reason = "bad_field"
	ReasonPlanFailed   Reason = "plan_failed" // a fault of ours; the submission is kept
	ReasonQuarantined  Reason = "quarantined" // a human decides whether it is honest
)

// What was decided about a submission.
const (
	ReasonEnrolled        Reason = "enrolled"
	ReasonAlreadyEnrolled Reason = "already_enrolled"
	ReasonBusy            Reason = "busy"
	ReasonNoSequence      Reason = "no_sequence"   // no sequence's condition was true
	ReasonNotReentered    Reason = "not_reentered" // the only ones that matched may not be entered again yet
	ReasonBackfill        Reason = "backfill"
	ReasonDuplicate       Reason = "duplicate"
)

// Why a candidate sequence won or lost, beside the reasons above.
const (
	ReasonMatched        Reason = "matched"
	ReasonLowerPriority  Reason = "lower_priority"
	ReasonConditionFalse Reason = "condition_false"
	ReasonConditionFault Reason = "condition_fault" // the condition failed at run time; it counts as false
	ReasonReenterNever   Reason = "reenter_never"
	ReasonReenterLater   Reason = "reenter_later"
)

// Why the gate objected.
const (
	ReasonPaused              Reason = "paused"
	ReasonErased              Reason = "erased"
	ReasonExited              Reason = "exited"
	ReasonSuperseded          Reason = "superseded"
	ReasonConverted           Reason = "converted"
	ReasonStale               Reason = "stale"
	ReasonOutsideWindow       Reason = "outside_window"
	ReasonSuppressed          Reason = "suppressed"
	ReasonNoConsent           Reason = "no_consent"
	ReasonCapped              Reason = "capped"
	ReasonBraked              Reason = "braked"   // held by the sequence's brake
	ReasonReleased            Reason = "released" // let go by a human
	ReasonUndone              Reason = "undone"   // taken back by a human, as if it had not begun
	ReasonHoldout             Reason = "holdout"  // the lead is of the share that is never contacted
	ReasonProviderUnavailable Reason = "provider_unavailable"
	ReasonRateLimited         Reason = "rate_limited"
	ReasonUnsubscribed        Reason = "unsubscribed"
	ReasonCheckFailed         Reason = "check_failed"
	ReasonAwaiting            Reason = "awaiting_confirmation" // of the address
	ReasonUnconfirmed         Reason = "unconfirmed"           // the address was not confirmed in time
	ReasonAlreadyConfirmed    Reason = "already_confirmed"     // so nobody is asked again
	ReasonAddressConfirmed    Reason = "address_confirmed"     // what waited for it has its time now
)

// ReasonPlanned marks the entry that brings a touchpoint into being. Every touchpoint has exactly
// one, which is what makes the roll-up balance.
const ReasonPlanned Reason = "planned"

// What a human decided.
const (
	ReasonRetried   Reason = "retried"   // to try again
	ReasonResumed   Reason = "resumed"   // that what was paused goes on
	ReasonReopened  Reason = "reopened"  // to try again what had failed; it counts as planned once more
	ReasonMigrated  Reason = "migrated"  // that the enrollment goes on with another version of its sequence
	ReasonConfirmed Reason = "confirmed" // that it did happen, as seen at the provider
)

// What came of an attempt.
const (
	ReasonAccepted      Reason = "accepted"       // the provider took it
	ReasonNothingToDo   Reason = "nothing_to_do"  // the provider took it and says that it did nothing, because the person is known there, say
	ReasonFound         Reason = "found"          // a look-up found it at the provider
	ReasonAbsent        Reason = "absent"         // a look-up proved that it did not happen
	ReasonRefused       Reason = "refused"        // the provider refused for good
	ReasonBadParameters Reason = "bad_parameters" // a required parameter turned out absent; nothing was called
	ReasonAttempts      Reason = "attempts"       // every attempt was used up
	ReasonNoAnswer      Reason = "no_answer"      // timeout, broken connection: it may have happened
	ReasonServerError   Reason = "server_error"   // 5xx: it may have happened
	ReasonUnreadable    Reason = "unreadable"     // a 2xx whose body cannot be read: it may have happened
	ReasonInterrupted   Reason = "interrupted"    // the process ended between intent and outcome
	ReasonRestored      Reason = "restored"       // the store was restored from a backup made before: it may have happened
	ReasonNoLookup      Reason = "no_lookup"      // the provider cannot say whether it happened
	ReasonUnclear       Reason = "unclear"        // the provider's look-up gave no clear answer
	ReasonRedirected    Reason = "redirected"     // redirects are not followed on acts
	ReasonNotDone       Reason = "not_done"       // provably nothing happened; tried again later
	ReasonCancelled     Reason = "cancelled"      // by a human
	ReasonNoDefinition  Reason = "no_definition"  // the version of the sequence is not in the store
	ReasonCompleted     Reason = "completed"      // every step ended
)

// Check names one check of the gate.
type Check string

// The checks in the order in which they are made; the first that objects decides.
const (
	CheckPaused     Check = "paused"
	CheckErased     Check = "erased"
	CheckEnrollment Check = "enrollment" // ended, or its exit condition is true

	// CheckConfirmation is made of steps that ask the lead to confirm the address and of those that wait for it.
	CheckConfirmation Check = "confirmation"

	CheckCondition   Check = "condition"
	CheckGrace       Check = "grace"
	CheckWindow      Check = "window"
	CheckSuppression Check = "suppression"
	CheckConsent     Check = "consent"
	CheckCap         Check = "cap"
	CheckConnector   Check = "connector" // breaker, rate
	CheckProvider    Check = "provider"  // unsubscribed at the provider
)

// Checks lists the checks of the gate in their order.
var Checks = []Check{
	CheckPaused, CheckErased, CheckEnrollment, CheckConfirmation, CheckCondition, CheckGrace, CheckWindow,
	CheckSuppression, CheckConsent, CheckCap, CheckConnector, CheckProvider,
}
