// upload.mjs URL BYTES TIMES HEADERS: POST a body that is too large, TIMES times; prints the statuses as JSON.
const [url, bytes, times, headers] = process.argv.slice(2);
const body = JSON.stringify({ model: "m", messages: [{ role: "user", content: "x".repeat(Number(bytes)) }] });
const statuses = [];
for (let i = 0; i < Number(times); i++) {
	try {
		const reply = await fetch(url, { method: "POST", body, headers: { "content-type": "application/json", ...JSON.parse(headers) } });
		await reply.text();
		statuses.push(reply.status);
	} catch (e) {
		statuses.push(String(e.cause ?? e));
	}
}
console.log(JSON.stringify(statuses));
