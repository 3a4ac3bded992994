-- Changes one request's hold in the hash at KEYS[2], where it stands under the request's id, in units of
-- 1e-9. The field `total` is the sum of all, so that nobody adds up thousands of them for each request.
-- ARGV: what is wanted, the request, units, how many holds there may be, their life in milliseconds.
--
-- `hold` takes so much, if the balance at KEYS[1] affords it beside all other holds. It answers what came
-- of it, what may be spent, and what the others hold. A hold that is there already is held: whoever did
-- not hear the answer asks again. A hold of 0 leaves no trace.
--
-- `charge` changes a hold to what its request has cost, or 0: then it is gone. Where there is no hold,
-- there is none afterwards: one that has been booked meanwhile must not come back.

local wanted, request, units, most, life = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local limit = string.rep('9', 40)

-- held is the total. One that cannot be read is added up again, and what is no hold is taken away.
local function held()
  local total = redis.pcall('HGET', KEYS[2], 'total')
  if type(total) == 'table' and total.err then
    redis.call('DEL', KEYS[2])
    return '0'
  end
  if total and integer(total, limit) then return total end
  local all, added = redis.call('HGETALL', KEYS[2]), '0'
  for i = 1, #all, 2 do
    if all[i] ~= 'total' and integer(all[i + 1], limit) then
      added = sum(added, all[i + 1], 1)
    else
      redis.call('HDEL', KEYS[2], all[i])
    end
  end
  if added ~= '0' then redis.call('HSET', KEYS[2], 'total', added) end
  return added
end

-- others is what all but this request hold, and what this one does: false where it holds nothing.
local function others()
  local total, own = held(), redis.call('HGET', KEYS[2], request)
  if not own or not integer(own, limit) then return total, false end
  if above(own, total) then -- the total is wrong
    redis.call('HDEL', KEYS[2], 'total')
    total = held()
  end
  return sum(total, own, -1), own
end

-- set makes this request hold so much beside what the others do.
local function set(rest)
  if units == '0' then
    redis.call('HDEL', KEYS[2], request)
  else
    redis.call('HSET', KEYS[2], request, units)
    redis.call('PEXPIRE', KEYS[2], life)
  end
  redis.call('HSET', KEYS[2], 'total', sum(rest, units, 1))
  if redis.call('HLEN', KEYS[2]) == 1 then redis.call('DEL', KEYS[2]) end
end

local rest, own = others()
if wanted == 'charge' then
  if own then set(rest) end
  return {'charged'}
end
if own == units then return {'held', '0', rest} end
local known = balance(KEYS[1])
if not known then return {'unknown'} end
if known.frozen then return {'frozen'} end
if units == '0' then return {'held', known.spendable, rest} end
if string.sub(known.spendable, 1, 1) == '-' or above(sum(rest, units, 1), known.spendable) then
  return {'poor', known.spendable, rest}
end
if not own and redis.call('HLEN', KEYS[2]) > most then return {'many'} end
set(rest)
return {'held', known.spendable, rest}
