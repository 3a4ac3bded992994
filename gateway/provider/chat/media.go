package chat

import "strings"

// Sounds says whether data of a media type may have sound in it, as a film does. Of an unknown type, "", it may.
func Sounds(mediaType string) bool {
	mediaType = strings.ToLower(mediaType)
	for _, silent := range []string{"image/", "text/", "application/pdf", "application/json"} {
		if strings.HasPrefix(mediaType, silent) {
			return false
		}
	}
	return true
}
