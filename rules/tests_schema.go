package rules

// The part of the JSON Schema that describes `tests`.

func testsSchema() object {
	return object{
		"type": []string{"array", "null"}, "items": object{"$ref": "#/$defs/test"},
		"description": "Tests of these rules: what is submitted, and what must come of it. lodestone test runs them on a virtual clock. They change nothing and are no part of a version.",
		"examples":    []any{[]any{exampleTest()}},
	}
}

func testSchema() object {
	return described("One test.", closed(object{
		"name":    object{"type": []string{"string", "number", "boolean"}, "description": "What the test shows, in words.", "examples": []string{"a large company is invited"}},
		"submit":  shownAs(described("One submission or a list of them.", orList("submit")), exampleTest()["submit"]),
		"signals": shownAs(described("Signals that come back, as in {kind: converted, at: 2d}.", orList("signal")), object{"kind": "converted", "at": "2d"}),
		"provider": object{
			"type":        "object",
			"description": "What the provider answers, by step, sequence.step, connector or connector.operation; everything else is accepted. A single answer answers every call, a list one after the other, then calls are accepted.",
			"additionalProperties": object{"anyOf": []any{
				object{"enum": Answers},
				object{"type": "array", "minItems": 1, "items": object{"enum": Answers}},
			}},
			"examples": []any{object{"referralrock.invite": "refused"}, object{"invite": []string{"unavailable", "accepted"}}},
		},
		"until":  described("When the clock stops. Without it the test goes on until nothing waits any more.", object{"$ref": "#/$defs/moment"}),
		"expect": shownAs(described("What must come of it: of one lead, or a list for several.", orList("expect")), exampleTest()["expect"]),
	}, "name", "submit", "expect"))
}

// orList is one of a definition, or a list of them.
func orList(name string) object {
	one := object{"$ref": "#/$defs/" + name}
	return object{"anyOf": []any{one, object{"type": "array", "minItems": 1, "items": one}}}
}

func anyScalar(description string, examples ...string) object {
	return object{"type": []string{"string", "number", "boolean"}, "description": description, "examples": examples}
}

func submitSchema() object {
	return described("One submission.", closed(object{
		"form":     anyScalar("The form that is submitted.", "pricing-guide"),
		"fields":   object{"type": "object", "additionalProperties": object{"type": []string{"string", "number", "boolean", "null"}}, "description": "What the person entered.", "examples": []any{object{"email": "ada@example.com"}}},
		"backfill": object{"type": "boolean", "default": false, "description": "An old submission: it fills profile and score and enrolls nobody."},
		"at":       described("When. The first is at 2026-01-05T09:00:00Z unless it says so, each other one at the time of the one before it.", object{"$ref": "#/$defs/moment"}),
		"context": shownAs(described("What the page knew.", closed(object{
			"page":          anyScalar("The page's address.", "https://example.com/pricing"),
			"ip":            anyScalar("The person's network address.", "203.0.113.9"),
			"user_agent":    anyScalar("The browser.", "Mozilla/5.0"),
			"timezone":      anyScalar("The browser's time zone, an IANA name.", "Europe/Berlin"),
			"referral_code": anyScalar("The code of the one who sent the person.", "ADA2026"),
			"utm": shownAs(described("The campaign parameters of the page's address.", closed(object{
				"source": anyScalar("utm_source", "newsletter"), "medium": anyScalar("utm_medium", "email"), "campaign": anyScalar("utm_campaign", "spring"),
				"term": anyScalar("utm_term", "guide"), "content": anyScalar("utm_content", "footer"),
			})), object{"source": "newsletter"}),
			"utm_first": shownAs(described("Those of the first visit that had any.", closed(object{
				"source": anyScalar("utm_source", "newsletter"), "medium": anyScalar("utm_medium", "email"), "campaign": anyScalar("utm_campaign", "spring"),
				"term": anyScalar("utm_term", "guide"), "content": anyScalar("utm_content", "footer"),
			})), object{"source": "search"}),
			"consent": shownAs(described("What the person agreed to.", closed(object{
				"marketing": object{"type": "boolean", "description": "Whether they agreed to hear from you."},
				"text":      anyScalar("The words that were shown.", "Yes, send me news"),
				"at":        object{"$ref": "#/$defs/moment"},
			}, "marketing")), object{"marketing": true}),
		})), object{"timezone": "Europe/Berlin", "consent": object{"marketing": true}}),
	}, "form", "fields"))
}

func signalSchema() object {
	return described("One signal.", closed(object{
		"kind":   object{"type": "string", "pattern": kindPattern.String(), "description": "What came back.", "examples": []string{"converted", "unsubscribed", "bounced", "opened"}},
		"email":  text("Whose it is. Without it that of the first submission.", "ada@example.com"),
		"at":     described("When it comes. Without it at the last submission.", object{"$ref": "#/$defs/moment"}),
		"detail": object{"type": "object", "description": "What else came with it.", "examples": []any{object{"type": "hard"}}},
	}, "kind"))
}

func expectSchema() object {
	return described("What must have come of one lead. What is left out is not looked at.", closed(object{
		"email":    text("Whose it is. Without it that of the first submission.", "ada@example.com"),
		"score":    object{"type": "integer", "description": "The score at the last submission.", "examples": []int{60}},
		"band":     anyScalar("The band at the last submission.", "hot"),
		"lines":    object{"type": "object", "additionalProperties": object{"type": "number"}, "description": "What rules gave, by name, as of the last submission; 0 expects that a rule gave nothing. Rules that are not named are not looked at.", "examples": []any{object{"business-email": 20}}},
		"sequence": anyScalar("The sequence that was entered last; none expects that none was.", "hot-invite", "none"),
		"rejected": object{"type": "string", "pattern": reasonPattern.String(), "description": "Why a submission of the test could not be used.", "examples": []string{"missing_field", "bad_email"}},
		"only":     object{"type": "boolean", "default": false, "description": "There are no touchpoints besides those that are expected."},
		"touchpoints": object{
			"type": "array", "description": "Touchpoints that must appear in this order. Others may stand between unless only is true.",
			"examples": []any{[]any{object{"step": "invite", "at": "10m", "outcome": "sent"}}},
			"items": closed(object{
				"step":     anyScalar("The step.", "invite"),
				"sequence": anyScalar("The sequence, where several have such a step.", "hot-invite"),
				"at":       described("When it came to this; of one that still waits, when it is due.", object{"$ref": "#/$defs/moment"}),
				"outcome":  object{"enum": outcomes(), "description": "What it came to. deferred fits each time it was put off."},
				"reason":   object{"type": "string", "pattern": reasonPattern.String(), "description": "Why.", "examples": []string{"accepted", "no_consent", "condition_false"}},
			}, "step"),
		},
	}))
}

func exampleTest() object {
	return object{
		"name":   "a large company is invited",
		"submit": object{"form": "pricing-guide", "fields": object{"email": "cto@bigco.example", "company_size": 1500}},
		"expect": object{"band": "hot", "sequence": "hot-invite", "touchpoints": []any{object{"step": "invite", "at": "10m", "outcome": "sent"}}},
	}
}
