-- Which run of the machine an attempt was begun in; 0 is unknown. Files of an attempt are not synced before it starts, so what
-- they do not say counts only while the machine that wrote them is still up.
ALTER TABLE attempts ADD COLUMN boot INTEGER NOT NULL DEFAULT 0;
