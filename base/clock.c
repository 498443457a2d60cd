/*
 * Time, and its RFC 3339 form. Called by everything, on any thread. The only state are the two knobs of the tests.
 */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define MS_PER_DAY INT64_C(86400000)

static atomic_int_fast64_t clock_shift_ms;           /* tests: added to both clocks */
static atomic_int_fast64_t clock_frozen_wall_ms = -1; /* tests: -1 = not frozen */

static int64_t read_us(clockid_t id)
{
	struct timespec t;

	must(clock_gettime(id, &t) == 0);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_mono_us(void)
{
	return read_us(CLOCK_MONOTONIC) + atomic_load_explicit(&clock_shift_ms, memory_order_relaxed) * 1000;
}

int64_t clock_mono_ms(void)
{
	return clock_mono_us() / 1000;
}

int64_t clock_wall_ms(void)
{
	int64_t frozen = atomic_load_explicit(&clock_frozen_wall_ms, memory_order_relaxed);

	if (frozen >= 0)
		return frozen;
	return read_us(CLOCK_REALTIME) / 1000 + atomic_load_explicit(&clock_shift_ms, memory_order_relaxed);
}

void clock_test_advance_ms(int64_t ms)
{
	atomic_fetch_add(&clock_shift_ms, ms);
	if (atomic_load(&clock_frozen_wall_ms) >= 0)
		atomic_fetch_add(&clock_frozen_wall_ms, ms);
}

void clock_test_set_wall_ms(int64_t wall_ms)
{
	atomic_store(&clock_frozen_wall_ms, wall_ms);
}

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar. Counted in years that begin in March, so that the
 * leap day is the last of its year, and in eras of 400 years, which all have 146097 days. */
static int64_t days_from_date(int64_t year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t of_era = y - era * 400;
	int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_from_days(int64_t days, int *ret_year, int *ret_month, int *ret_day)
{
	int64_t z = days + 719468;
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t of_era = z - era * 146097;
	int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
	int64_t m = (5 * of_year + 2) / 153;

	*ret_day = (int)(of_year - (153 * m + 2) / 5 + 1);
	*ret_month = (int)(m < 10 ? m + 3 : m - 9);
	*ret_year = (int)(y + era * 400 + (*ret_month <= 2 ? 1 : 0));
}

static void put_digits(char *out, size_t n, int v)
{
	while (n--) {
		out[n] = (char)('0' + v % 10);
		v /= 10;
	}
}

void clock_iso(int64_t wall_ms, char out[CLOCK_ISO_LEN])
{
	const int64_t first = days_from_date(0, 1, 1) * MS_PER_DAY, last = days_from_date(10000, 1, 1) * MS_PER_DAY - 1;
	int year, month, day;

	/* four digits of year is all that the form has */
	if (wall_ms < first)
		wall_ms = first;
	if (wall_ms > last)
		wall_ms = last;
	int64_t days = wall_ms / MS_PER_DAY, ms = wall_ms % MS_PER_DAY;

	if (ms < 0) {
		ms += MS_PER_DAY;
		days--;
	}
	date_from_days(days, &year, &month, &day);
	int t = (int)ms;

	memcpy(out, "0000-00-00T00:00:00.000Z", CLOCK_ISO_LEN);         /* a job has ten of them: no printf */
	put_digits(out, 4, year);
	put_digits(out + 5, 2, month);
	put_digits(out + 8, 2, day);
	put_digits(out + 11, 2, t / 3600000);
	put_digits(out + 14, 2, t / 60000 % 60);
	put_digits(out + 17, 2, t / 1000 % 60);
	put_digits(out + 20, 3, t % 1000);
}

/* Take n digits off the front. */
static bool take_digits(struct slice *s, size_t n, int *ret_v)
{
	int64_t v;

	if (s->n < n || s->p[0] == '-' || !slice_to_i64(slice_cut(*s, n), 0, 9999, &v))
		return false;
	*s = slice_from(*s, n);
	*ret_v = (int)v;
	return true;
}

/* Take one character of a set off the front. */
static bool take_char(struct slice *s, const char *set, char *ret_c)
{
	if (s->n == 0 || s->p[0] == '\0' || !strchr(set, s->p[0]))
		return false;
	if (ret_c)
		*ret_c = s->p[0];
	*s = slice_from(*s, 1);
	return true;
}

static bool take_date(struct slice *s, int64_t *ret_days)
{
	static const int month_days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int year, month, day;

	if (!take_digits(s, 4, &year) || !take_char(s, "-", NULL) || !take_digits(s, 2, &month) || !take_char(s, "-", NULL) ||
		!take_digits(s, 2, &day))
		return false;
	bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	if (month < 1 || month > 12 || day < 1 || day > month_days[month - 1] + (month == 2 && is_leap))
		return false;
	*ret_days = days_from_date(year, month, day);
	return true;
}

/* Digits of a second after its point; what is finer than a millisecond is dropped. */
static bool take_fraction(struct slice *s, int *ret_ms)
{
	int ms = 0;
	size_t n = 0;

	for (; s->n && s->p[0] >= '0' && s->p[0] <= '9'; n++) {
		if (n < 3)
			ms = ms * 10 + (s->p[0] - '0');
		*s = slice_from(*s, 1);
	}
	for (size_t i = n; i < 3; i++)
		ms *= 10;
	*ret_ms = ms;
	return n > 0;
}

static bool take_time(struct slice *s, int64_t *ret_ms)
{
	int hour, minute, second, ms = 0;

	if (!take_digits(s, 2, &hour) || !take_char(s, ":", NULL) || !take_digits(s, 2, &minute) || !take_char(s, ":", NULL) ||
		!take_digits(s, 2, &second))
		return false;
	if (hour > 23 || minute > 59 || second > 59)
		return false;
	if (take_char(s, ".", NULL) && !take_fraction(s, &ms))
		return false;
	*ret_ms = ((hour * 60 + minute) * 60 + second) * INT64_C(1000) + ms;
	return true;
}

static bool take_offset(struct slice *s, int64_t *ret_ms)
{
	char sign;
	int hour, minute;

	if (take_char(s, "Z", NULL)) {
		*ret_ms = 0;
		return true;
	}
	if (!take_char(s, "+-", &sign) || !take_digits(s, 2, &hour) || !take_char(s, ":", NULL) || !take_digits(s, 2, &minute))
		return false;
	if (hour > 23 || minute > 59)
		return false;
	*ret_ms = (hour * 60 + minute) * INT64_C(60000) * (sign == '-' ? -1 : 1);
	return true;
}

bool clock_parse_iso(struct slice s, int64_t *ret_wall_ms)
{
	int64_t days, time_ms, offset_ms;

	if (!take_date(&s, &days) || !take_char(&s, "Tt ", NULL) || !take_time(&s, &time_ms) || !take_offset(&s, &offset_ms) || s.n)
		return false;
	*ret_wall_ms = days * MS_PER_DAY + time_ms - offset_ms;
	return true;
}
