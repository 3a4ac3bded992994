-- Writes ARGV (epoch, seq, spendable, frozen, available, reserved, life in milliseconds) to the hash at
-- KEYS[1], unless that holds a balance of a higher (epoch, seq). The life of what stays is not renewed: what
-- is wrong, and high, ends with it.

local had, wrong = balance(KEYS[1])
if wrong then redis.call('DEL', KEYS[1]) end
if had and (above(had.epoch, ARGV[1]) or had.epoch == ARGV[1] and above(had.seq, ARGV[2])) then
  return 0
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'seq', ARGV[2], 'spendable', ARGV[3], 'frozen', ARGV[4],
  'available', ARGV[5], 'reserved', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return 1
