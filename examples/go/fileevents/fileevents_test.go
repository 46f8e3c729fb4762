package fileevents

import "testing"

// A client may write its id in any form of a UUID; the row holds the usual one.
func TestUUIDTakesEveryUsualFormAndNothingElse(t *testing.T) {
	const usual = "0b3a1c5e-2d4f-4a6b-8c7d-9e0f1a2b3c4d"
	for text, want := range map[string]string{
		usual:                                    usual,
		" 0B3A1C5E-2D4F-4A6B-8C7D-9E0F1A2B3C4D ": usual,
		"0b3a1c5e2d4f4a6b8c7d9e0f1a2b3c4d":       usual,
		"{0b3a1c5e-2d4f-4a6b-8c7d-9e0f1a2b3c4d}": usual,
		"urn:uuid:" + usual:                      usual,
		"":                                       "",
		"desktop":                                "",
		usual + "0":                              "",
		"zb3a1c5e-2d4f-4a6b-8c7d-9e0f1a2b3c4d":   "",
		"0b3a1c5ezd4f4a6b8c7d9e0f1a2b3c4d":       "",
	} {
		if got := uuid(text); got != want {
			t.Errorf("uuid(%q) = %q, want %q", text, got, want)
		}
	}
}
