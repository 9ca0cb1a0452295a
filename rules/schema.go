package rules

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/lodestonehq/lodestone"
)

// object is a piece of a JSON Schema.
type object = map[string]any

// JSONSchema returns the JSON Schema (2020-12) of a rule file, for editors: it completes keys,
// explains them and marks what cannot be right. It knows the operations of opts by name. It is less
// strict than [Compile], which also reads the expressions; what Compile accepts, it accepts.
func JSONSchema(opts Options) []byte {
	step, variant := stepSchema(opts)
	schema := object{
		"$schema":              "https://json-schema.org/draft/2020-12/schema",
		"title":                "Lodestone rule file",
		"description":          "Forms, lists, scoring rules and sequences. Any of these keys may stand in any file of the directory; names are unique across files.",
		"type":                 []string{"object", "null"},
		"additionalProperties": false,
		"properties": object{
			"forms":   shownAs(described("The forms of your site and what they ask for, by name.", named(object{"$ref": "#/$defs/form"})), object{"pricing-guide": object{"title": "Pricing guide", "fields": object{"email": object{"type": "email", "required": true}, "first_name": object{"type": "text"}}}}),
			"lists":   shownAs(described("Lists of texts that expressions can look into, as in lead.domain in lists.competitors. The names disposable, freemail and role replace or change the lists behind lead.disposable, lead.freemail and lead.role.", named(object{"$ref": "#/$defs/list"})), object{"competitors": []string{"rival.example", "other.example"}}, object{"disposable": object{"add": []string{"throwaway.example"}}}),
			"scoring": object{"$ref": "#/$defs/scoring"},
			"caps": object{
				"type": []string{"array", "null"}, "maxItems": 16, "items": object{"$ref": "#/$defs/cap"},
				"description": "How many touchpoints a lead gets at most, across all sequences. One that is over is put off until the oldest has left the period, or skipped as stale where that is past its grace. What was sent counts, and what may have been.",
				"examples":    []any{[]object{{"max": 3, "per": "7d"}}},
			},
			"tests":     testsSchema(),
			"sequences": shownAs(described("What happens after a submission, by name. Of the sequences whose condition is true, the one with the highest priority is entered.", named(object{"$ref": "#/$defs/sequence"})), object{"hot-invite": exampleSequence()}),
		},
		"$defs": object{
			"form":     formSchema(),
			"field":    fieldSchema(),
			"list":     listSchema(),
			"scoring":  scoringSchema(),
			"rule":     ruleSchema(),
			"sequence": sequenceSchema(),
			"step":     step,
			"window":   windowSchema(),
			"cap": closed(object{
				"max": object{"type": "integer", "minimum": 1, "maximum": 1000, "description": "How many touchpoints.", "examples": []int{3}},
				"per": described("In which time, up to 366d; a moving one.", object{"$ref": "#/$defs/duration"}),
			}, "max", "per"),
			"brake": described("How many leads may enter in a moving period. Those above it are held until a person releases them or takes them back.", shownAs(closed(object{
				"enrollments": object{"type": "integer", "minimum": 1, "maximum": maxCount, "description": "How many leads.", "examples": []int{200}},
				"per":         described("In which time, from 1m to 1d.", object{"$ref": "#/$defs/duration"}),
			}, "enrollments", "per"), object{"enrollments": 200, "per": "1h"})),
			"sequenceVariant": closed(object{
				"weight": object{"$ref": "#/$defs/weight"},
				"steps":  object{"type": "array", "minItems": 1, "items": object{"$ref": "#/$defs/step"}, "description": "The steps of this variant; without them the sequence's.", "examples": []any{exampleSequence()["steps"]}},
			}),
			"stepVariant": variant,
			"weight":      object{"type": "integer", "minimum": 0, "maximum": maxCount, "default": 1, "description": "Its share among the weights of all variants. A lead keeps its variant when others are added or their weights change, unless it must move to make the shares right.", "examples": []int{50}},
			"test":        testSchema(),
			"expect":      expectSchema(),
			"submit":      submitSchema(),
			"signal":      signalSchema(),
			"moment":      text("A time in RFC 3339, or how long after the first submission of the test.", "2026-03-06T10:00:00Z", "10m", "3d"),
			"condition":   expression("A condition: an expression that is true or false.", `band == "hot"`, "not lead.freemail", "fields.company_size >= 200"),
			"duration": object{
				"type": "string", "pattern": `^[0-9]+[smhdw]$`,
				"description": "A whole number and a unit: seconds, minutes, hours, days or weeks.",
				"examples":    []string{"90s", "10m", "2h", "3d", "2w"},
			},
		},
	}
	data, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		panic(err) // it holds nothing but texts, lists and maps
	}
	return append(data, '\n')
}

func described(text string, o object) object {
	o["description"] = text
	return o
}

// shownAs adds what to write, which editors offer.
func shownAs(o object, examples ...any) object {
	o["examples"] = examples
	return o
}

// named is a mapping from names to o; empty sections may stay in a file.
func named(o object) object {
	return object{
		"type":                 []string{"object", "null"},
		"propertyNames":        object{"pattern": namePattern.String()},
		"additionalProperties": o,
	}
}

// closed is a mapping with exactly these keys.
func closed(properties object, required ...string) object {
	o := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

func text(description string, examples ...string) object {
	return object{"type": "string", "minLength": 1, "description": description, "examples": examples}
}

// expression accepts a boolean or number as well, which YAML makes of an unquoted one.
func expression(description string, examples ...string) object {
	return object{"type": []string{"string", "boolean", "number"}, "description": description, "examples": examples}
}

// someOf accepts one element or a list of them.
func someOf(element object, examples ...string) object {
	return object{
		"oneOf":    []any{element, object{"type": "array", "minItems": 1, "items": element}},
		"examples": examples,
	}
}

func formSchema() object {
	return described("One form. Its name is the last part of its subject, lodestone.forms.<form>, and of its address, POST /forms/<form>.", closed(object{
		"title":   object{"type": []string{"string", "number", "boolean"}, "description": "What people read.", "examples": []string{"Pricing guide"}},
		"asset":   object{"type": "string", "format": "uri", "pattern": "^https?://", "description": "The address of what the form promises. It is delivered on every honest request, whatever is decided about the lead.", "examples": []string{"https://example.com/pricing-guide.pdf"}},
		"thanks":  described("Where a visitor's browser is sent after a form without script: one address, or several of which the hidden input context.thanks picks one. {asset} in it stands for the link to the asset. Without it a plain page says thanks.", someOf(object{"type": "string", "pattern": "^https?://"}, "https://example.com/thanks", "https://example.com/thanks?file={asset}")),
		"origins": described("Pages whose scripts may post this form; without it those of http.origins in the configuration.", someOf(object{"type": "string", "pattern": `^(\*|https?://[^/]+)$`}, "https://example.com")),
		"map": described("Where the payload of another tool has what this form asks for: by field, or context.… , submission.id and submission.at, a path into the payload. What it does not lead to is looked for under the field's own name.", object{
			"type": "object", "minProperties": 1, "propertyNames": object{"pattern": targetPattern()},
			"additionalProperties": object{"type": "string", "pattern": `^payload([.\[].*)?$`},
			"examples":             []any{object{"email": "payload.contact.email", "company_size": `payload.answers[field.ref == "size"].number`}},
		}),
		"honeypot":   object{"type": "string", "pattern": `^[A-Za-z_][A-Za-z0-9_]{0,63}$`, "description": "An input that the form does not declare and people do not see; one that is filled in counts in risk.score.", "examples": []string{"website"}},
		"quarantine": expression("A condition: when it is true the submission waits under attention, with its evidence, until a person releases or drops it. The visitor gets the asset all the same.", "risk.score > 80", "risk.honeypot or lead.disposable"),
		"signature":  object{"enum": lodestone.Signatures, "description": "How the tool that posts this form over HTTP signs its requests; what is not signed so is refused. The secret stands in the file that http.form_secrets in the configuration names."},
		"zone":       text("An expression for the lead's time zone: an IANA name, or nil when unknown.", "context.timezone ?? zone_of_country(fields.country)"),
		"fields":     object{"type": "object", "minProperties": 1, "propertyNames": object{"pattern": `^[A-Za-z_][A-Za-z0-9_]{0,63}$`}, "additionalProperties": object{"$ref": "#/$defs/field"}, "description": "What the form asks for. One field holds the lead's address: the one named email, or the only one of type email. A field has the same type in all forms.", "examples": []any{object{"email": object{"type": "email", "required": true}}}},
	}, "fields"))
}

func fieldSchema() object {
	return described("One field of a form.", closed(object{
		"type":     object{"enum": lodestone.FieldTypes, "description": "What the field holds. A text that is exactly a number, or true, false or on, becomes one where a number or boolean is declared."},
		"required": object{"type": "boolean", "default": false, "description": "A submission without it is kept aside with the reason missing_field."},
	}, "type"))
}

func listSchema() object {
	words := func() object {
		return object{"type": "array", "items": object{"type": []string{"string", "number", "boolean"}}}
	}
	listParts := closed(object{
		"file":   text("A file beside the rule file with one text a line; # begins a comment.", "competitors.txt"),
		"add":    shownAs(described("Of disposable, freemail and role: what is added to the built-in list.", words()), []string{"throwaway.example"}),
		"remove": shownAs(described("Of disposable, freemail and role: what is taken from the built-in list.", words()), []string{"web.de"}),
	})
	listParts["minProperties"] = 1
	return object{
		"description": "Texts, written out or in a file beside the rule file.",
		"oneOf": []any{
			object{"type": "array", "items": object{"type": []string{"string", "number", "boolean"}}, "examples": []any{[]string{"rival.example", "other.example"}}},
			listParts,
		},
	}
}

func scoringSchema() object {
	return object{
		"type": []string{"object", "null"}, "additionalProperties": false,
		"description": "How points are given, and which scores form a band.",
		"examples":    []any{object{"bands": object{"hot": 60, "warm": 30, "cold": 0}, "rules": []any{exampleRule()}}},
		"properties": object{
			"bands": object{
				"type": "object", "minProperties": 1, "propertyNames": object{"pattern": namePattern.String()},
				"additionalProperties": object{"type": "integer"},
				"description":          "The lowest score of each band, each a different one; the lowest band also takes everything below it. Bands stand in one file only.",
				"examples":             []any{object{"hot": 60, "warm": 30, "cold": 0}},
			},
			"rules": object{"type": []string{"array", "null"}, "items": object{"$ref": "#/$defs/rule"}, "description": "Each rule whose condition is true gives its points.", "examples": []any{[]any{exampleRule()}}},
		},
	}
}

func ruleSchema() object {
	return described("One scoring rule. When it matches again, its line replaces the earlier one.", closed(object{
		"name":      object{"type": []string{"string", "number"}, "pattern": namePattern.String(), "description": "Names the rule in explanations.", "examples": []string{"business-email", "company-size"}},
		"when":      object{"$ref": "#/$defs/condition"},
		"points":    object{"type": []string{"number", "string"}, "description": "A number, negative to take away, or an expression that gives one.", "examples": []any{20, -100, "fields.company_size >= 1000 ? 40 : 25"}},
		"each":      object{"type": "boolean", "default": false, "description": "One line for every submission instead of one for the lead."},
		"half_life": described("After this long the points are worth half, counted from the submission that earned them. Without it they do not fade.", object{"$ref": "#/$defs/duration"}),
	}, "name", "points"))
}

func sequenceSchema() object {
	sequence := closed(object{
		"when":     object{"$ref": "#/$defs/condition"},
		"priority": object{"type": "integer", "default": 0, "examples": []int{10, 100}, "description": "The highest wins. Ties go to the first file by name, then to the first in the file."},
		"consent":  object{"enum": []string{"required", "confirmed"}, "description": "required: steps are skipped for leads who did not agree to marketing. confirmed: also for those who did not confirm the address after they agreed, except steps with confirm, which ask for it.", "examples": []string{"required", "confirmed"}},
		"reenter": object{
			"type": "string", "pattern": `^(never|always|[0-9]+[smhdw])$`, "default": "never",
			"description": "Whether a lead may enter again: never, always, or this long after the last time ended.", "examples": []string{"never", "always", "90d"},
		},
		"zone": object{
			"type": "string", "minLength": 1, "default": ZoneLead,
			"description": "By whose clocks cron and window are read: lead for the lead's own zone (UTC while it is not known), or an IANA name.", "examples": []string{"lead", "Europe/Berlin", "America/New_York"},
		},
		"window": described("The hours that every step keeps to, unless it has a window of its own. A step whose time is outside happens when it opens next.", object{"$ref": "#/$defs/window"}),
		"exit":   expression("A condition: as soon as it is true, the lead leaves the sequence.", "signals.converted"),
		"steps":  object{"type": "array", "minItems": 1, "items": object{"$ref": "#/$defs/step"}, "description": "The steps, one after the other.", "examples": []any{exampleSequence()["steps"]}},
		"variants": object{
			"type": "object", "minProperties": 2, "maxProperties": 26, "propertyNames": object{"pattern": namePattern.String(), "not": object{"const": VariantHoldout}},
			"description":          "A split: each lead gets one of the variants, always the same, with its steps instead of the sequence's.",
			"additionalProperties": object{"anyOf": []any{object{"type": "null"}, object{"$ref": "#/$defs/sequenceVariant"}}},
			"examples":             []any{object{"short": object{"weight": 50}, "long": object{"weight": 50}}},
		},
		"holdout": object{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)? *%$`, "description": "The share of leads that is enrolled and never contacted, to compare the others with. Their steps are skipped with the reason holdout.", "examples": []string{"10%"}},
		"brake":   object{"$ref": "#/$defs/brake"},
	}, "when")
	sequence["anyOf"] = []any{object{"required": []string{"steps"}}, object{"required": []string{"variants"}}}
	return described("One sequence of steps for a lead.", sequence)
}

func windowSchema() object {
	clock := func(what, example string) object {
		return object{"type": "string", "pattern": `^([01]?[0-9]|2[0-4]):[0-5][0-9]$`, "description": what, "examples": []string{example}}
	}
	days := object{"type": "string", "pattern": `(?i)^ *[a-z]{3,9} *([-,] *[a-z]{3,9} *)*$`}
	return object{
		"type": "object", "additionalProperties": false, "minProperties": 1,
		"description": "Hours of weekdays by the clocks of the sequence's zone.",
		"properties": object{
			"days": object{"description": "The weekdays; without them daily. A window that goes on past midnight belongs to the day on which it opens.", "anyOf": []any{days, object{"type": "array", "minItems": 1, "items": days}}, "default": "daily", "examples": []any{"mon-fri", "sat,sun", "daily"}},
			"from": clock("When it opens; without it at midnight.", "09:00"),
			"to":   clock("When it closes; without it at the midnight after. Earlier than from, it closes on the next day.", "17:00"),
		},
		"examples": []any{object{"days": "mon-fri", "from": "09:00", "to": "17:00"}, object{"from": "22:00", "to": "06:00"}},
	}
}

// stepSchema names every operation, and for each of them what `with` takes.
func stepSchema(opts Options) (step, variant object) {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(opts.Operations)), func(name string) bool { return opts.Operations[name].NoStep != "" })
	do := object{"type": "string", "pattern": `^[^.]+\..+$`, "description": "The connector and what it shall do.", "examples": []string{"referralrock.invite"}}
	if len(names) > 0 {
		do["enum"] = names
	}
	var conditions []any
	for _, name := range names {
		op := opts.Operations[name]
		properties, required := object{}, []string{}
		for _, p := range op.Parameters {
			properties[p.Name] = parameterSchema(p)
			if p.Required && p.Name != "email" {
				required = append(required, p.Name)
			}
		}
		with := described(op.Summary, closed(properties, required...))
		then := object{"properties": object{"with": with}}
		if len(required) > 0 {
			then["required"] = []string{"with"}
		} else {
			with["type"] = []string{"object", "null"}
		}
		conditions = append(conditions, object{
			"if":   object{"properties": object{"do": object{"const": name}}, "required": []string{"do"}},
			"then": then,
		})
	}
	variant = closed(object{
		"weight": object{"$ref": "#/$defs/weight"},
		"do":     do,
		"with":   object{"type": []string{"object", "null"}, "description": "What this variant sends, the whole of it, instead of the step's.", "examples": []any{object{"firstName": "friend"}}},
	})
	step = described("One step. When it is done, skipped or failed, the next one follows.", closed(object{
		"name":    object{"type": []string{"string", "number"}, "pattern": namePattern.String(), "description": "Names the step in explanations; unique in its sequence.", "examples": []string{"invite", "remind"}},
		"after":   described("How long after the enrollment, or after the previous step ended. Without it: at once.", object{"$ref": "#/$defs/duration"}),
		"cron":    object{"type": "string", "minLength": 1, "description": "A wall-clock time in the sequence's zone: minute, hour, day of the month, month, weekday. The step happens at the next match after the enrollment or after the previous step ended; together with after, at the first match past that wait.", "examples": []string{"0 9 * * TUE", "30 8 1 * *", "0 10 * * MON-FRI"}},
		"window":  described("The hours that this step keeps to, instead of the sequence's.", object{"$ref": "#/$defs/window"}),
		"confirm": described("Double opt-in: this step asks the lead to confirm the address, with ${links.confirm} in what it sends, and what follows waits until they did, at most this long; then the sequence ends. Who confirmed already is not asked again.", object{"$ref": "#/$defs/duration"}),
		"grace":   described("How late the step may still happen, counted from its first allowed moment. Later than that it is skipped as stale. Without it, it happens however late.", object{"$ref": "#/$defs/duration"}),
		"when":    object{"$ref": "#/$defs/condition"},
		"do":      do,
		"with":    object{"type": []string{"object", "null"}, "description": "The fields of the operation's request. The lead's address is sent along. ${…} is replaced by the value of an expression.", "examples": []any{object{"firstName": `${fields.first_name ?? "there"}`}}},
		"variants": object{
			"type": "object", "minProperties": 2, "maxProperties": 26, "propertyNames": object{"pattern": namePattern.String(), "not": object{"const": VariantHoldout}},
			"description":          "A split: each lead gets one of the variants, always the same, with its do and with instead of the step's.",
			"additionalProperties": object{"anyOf": []any{object{"type": "null"}, object{"$ref": "#/$defs/stepVariant"}}},
			"examples":             []any{object{"plain": object{"weight": 50}, "warm": object{"weight": 50, "with": object{"firstName": "friend"}}}},
		},
	}, "name"))
	step["anyOf"] = []any{object{"required": []string{"do"}}, object{"required": []string{"variants"}}}
	if len(conditions) > 0 {
		step["allOf"], variant["allOf"] = conditions, conditions
	}
	return step, variant
}

func parameterSchema(p lodestone.Parameter) object {
	o := object{}
	if p.Description != "" {
		o["description"] = p.Description
	}
	code := object{"type": "string", "pattern": `\$\{`}
	switch p.Type {
	case lodestone.FieldNumber, lodestone.FieldBoolean:
		o["anyOf"] = []any{object{"type": string(p.Type)}, object{"type": "string", "pattern": `^\$\{`}}
	case lodestone.FieldList:
		o["type"] = "array"
		if p.Items != nil {
			o["items"] = parameterSchema(*p.Items)
		}
		if p.Least > 0 {
			o["minItems"] = p.Least
		}
		if p.Most > 0 {
			o["maxItems"] = p.Most
		}
	case lodestone.FieldObject:
		if len(p.Fields) == 0 {
			o["type"] = "object"
			break
		}
		properties, required := object{}, []string{}
		for _, f := range p.Fields {
			properties[f.Name] = parameterSchema(f)
			if f.Required && !f.Own() {
				required = append(required, f.Name)
			}
		}
		maps.Copy(o, closed(properties, required...))
	case lodestone.FieldAny:
	default:
		o["type"] = "string"
		if len(p.Values) > 0 {
			delete(o, "type")
			o["anyOf"] = []any{object{"enum": p.Values}, code}
		}
	}
	return o
}

func exampleRule() object {
	return object{"name": "business-email", "when": "not lead.freemail", "points": 20}
}

func exampleSequence() object {
	return object{"when": `band == "hot"`, "priority": 100, "exit": "signals.converted", "steps": []any{
		object{"name": "invite", "after": "10m", "do": "referralrock.invite", "with": object{"firstName": `${plain(fields.first_name) ?? "there"}`}},
	}}
}
