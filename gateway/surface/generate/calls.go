package generate

import "strconv"

// calls are the function calls of a conversation, and which of them wait for their results. Nothing here is
// searched through: a conversation may have many thousands.
type calls struct {
	list   []madeCall
	taken  map[string]bool    // ids in the chat
	byID   map[string][]int   // of list; the last one is the latest
	byName map[string][]queue // a queue for each turn that has calls of the name
}

type madeCall struct {
	id       string // in the chat
	answered bool
}

// queue are the calls of one function in one turn, in their order.
type queue struct {
	turn  int
	calls []int // of list
}

// add takes in a call of a turn and returns its id in the chat: its own, or one by its position, so that it is
// the same in every request of the conversation. Ids that come twice would be refused elsewhere.
func (c *calls) add(given, name string, turn int) string {
	if c.taken == nil {
		c.taken, c.byID, c.byName = map[string]bool{}, map[string][]int{}, map[string][]queue{}
	}
	id, n := given, len(c.list)
	if id == "" || c.taken[id] {
		id = "call_" + strconv.Itoa(n)
	}
	for c.taken[id] {
		id += "_"
	}
	c.taken[id] = true
	c.list = append(c.list, madeCall{id: id})
	c.byID[id] = append(c.byID[id], n)
	if given != "" && given != id {
		c.byID[given] = append(c.byID[given], n)
	}
	queues := c.byName[name]
	if last := len(queues) - 1; last < 0 || queues[last].turn != turn {
		queues = append(queues, queue{turn: turn})
	}
	last := &queues[len(queues)-1]
	last.calls = append(last.calls, n)
	c.byName[name] = queues
	return id
}

// answer is the id in the chat of the call that a result belongs to, which has its result then: the latest one
// of the id, else by the function's name the first in the last turn that has such a call without a result. ""
// if there is none.
func (c *calls) answer(id, name string) string {
	n, ok := c.latest(id)
	if !ok {
		n, ok = c.next(name)
	}
	if !ok {
		return ""
	}
	c.list[n].answered = true
	return c.list[n].id
}

func (c *calls) latest(id string) (int, bool) {
	waiting := c.byID[id]
	for len(waiting) > 0 && c.list[waiting[len(waiting)-1]].answered {
		waiting = waiting[:len(waiting)-1]
	}
	if len(waiting) == 0 {
		delete(c.byID, id)
		return 0, false
	}
	c.byID[id] = waiting
	return waiting[len(waiting)-1], true
}

func (c *calls) next(name string) (int, bool) {
	queues := c.byName[name]
	for ; len(queues) > 0; queues = queues[:len(queues)-1] {
		last := &queues[len(queues)-1]
		for len(last.calls) > 0 && c.list[last.calls[0]].answered {
			last.calls = last.calls[1:]
		}
		if len(last.calls) > 0 {
			c.byName[name] = queues
			return last.calls[0], true
		}
	}
	delete(c.byName, name)
	return 0, false
}
