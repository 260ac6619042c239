-- Seconds that the script of the present or last attempt ran, by the clock of its machine. NULL: not
-- known.
ALTER TABLE jobs ADD COLUMN run_s REAL;
