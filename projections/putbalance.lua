-- Writes ARGV (epoch, seq, spendable, frozen, life in milliseconds) to the hash at KEYS[1], unless that
-- holds a balance of a higher (epoch, seq). Numbers are compared as text, because Lua's are doubles and
-- would take neighbours beyond 2^53 for the same: without sign and leading zeros the longer is higher.
-- What does not fit 64 bits would never be overtaken; so it counts as nothing, as for whoever reads it.
-- The life of what stays is not renewed: what is wrong, and high, ends with it.

local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end
local function integer(s, most)
  return (s == '0' or string.find(s, '^[1-9][0-9]*$')) and not above(s, most)
end
local had = redis.pcall('HMGET', KEYS[1], 'epoch', 'seq', 'spendable', 'frozen')
if had.err then
  redis.call('DEL', KEYS[1])
elseif had[1] and had[2] and had[3] and had[4] then
  local most = '9223372036854775807'
  local sign, spendable = string.match(had[3], '^(%-?)([0-9]+)$')
  if integer(had[1], most) and integer(had[2], most) and (had[4] == '0' or had[4] == '1')
    and spendable and integer(spendable, string.rep('9', 36))
    and not (sign == '-' and spendable == '0')
    and (above(had[1], ARGV[1]) or had[1] == ARGV[1] and above(had[2], ARGV[2])) then
    return 0
  end
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'seq', ARGV[2], 'spendable', ARGV[3], 'frozen', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
