package gateway

import (
	"bytes"
	"net/http"

	"github.com/gin-gonic/gin"
)

// framing is how the events of a stream are written: as server-sent events, or as one JSON list.
type framing struct {
	list  bool
	begun bool // the list has
}

var (
	dataBegin, dataEnd           = []byte("data: "), []byte("\n\n")
	doneMark                     = []byte("data: [DONE]\n\n")
	listBegin, listNext, listEnd = []byte("["), []byte(",\r\n"), []byte("]")
)

// header sets the headers of the stream.
func (f *framing) header(c *gin.Context) {
	header := c.Writer.Header()
	if f.list {
		header.Set("Content-Type", "application/json; charset=utf-8")
	} else {
		header.Set("Content-Type", "text/event-stream; charset=utf-8")
	}
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Accel-Buffering", "no")
	c.Status(http.StatusOK)
}

// around is what an event stands between; name is its own, "" where its kind has none.
func (f *framing) around(name string) (before, after []byte) {
	switch {
	case f.list && f.begun:
		return listNext, nil
	case f.list:
		f.begun = true
		return listBegin, nil
	case name != "":
		return []byte("event: " + name + "\ndata: "), dataEnd
	}
	return dataBegin, dataEnd
}

// end is what ends a stream: the last event, where the answer has one, with the bill before it, and the mark.
// A list has no place for comments, and where clients take every line for data there is no bill either.
func (f *framing) end(d *door, last []byte, bill string) [][]byte {
	if f.list {
		if !f.begun {
			return [][]byte{last, listBegin, listEnd}
		}
		return [][]byte{last, listEnd}
	}
	switch {
	case d.plain:
		return [][]byte{last}
	case d.marked:
		return [][]byte{last, []byte(bill), doneMark}
	}
	return [][]byte{[]byte(bill), last}
}

// lastFrame finds where the last event of a kept stream begins.
func lastFrame(kept []byte) int {
	before := bytes.LastIndex(bytes.TrimSuffix(kept, dataEnd), dataEnd)
	if before < 0 {
		return 0
	}
	return before + len(dataEnd)
}
