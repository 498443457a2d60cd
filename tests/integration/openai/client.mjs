// client.mjs BASE_URL SCENARIO: one use of the official OpenAI client; prints what it saw as JSON. Called by test_openai.py.
import OpenAI from "openai";

const [baseURL, scenario] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: process.env.TEST_KEY ?? "anything", maxRetries: Number(process.env.TEST_RETRIES ?? 0) });
const messages = [{ role: "user", content: "hi" }];
const tools = [{ type: "function", function: { name: "look", parameters: { type: "object", properties: { a: { type: "integer" } } } } }];

async function failure(promise) {
	try {
		await promise;
		return { error: null };
	} catch (e) {
		return { error: e.constructor.name, status: e.status ?? null, code: e.code ?? null, param: e.param ?? null, type: e.type ?? null,
			message: e.message, requestID: e.requestID ?? null };
	}
}

const scenarios = {
	async list() {
		const ids = [];
		for await (const m of client.models.list()) ids.push(m.id);
		return { ids, one: await client.models.retrieve(ids[0]), missing: await failure(client.models.retrieve("no/such")) };
	},
	async chat() {
		const reply = await client.chat.completions.create({ model: "m", messages });
		return { text: reply.choices[0].message.content, finish: reply.choices[0].finish_reason, usage: reply.usage, id: reply._request_id,
			model: reply.model };
	},
	async iterate() {
		const stream = await client.chat.completions.create({ model: "m", messages, stream: true, stream_options: { include_usage: true } });
		let text = "", usage = null, chunks = 0;
		for await (const c of stream) {
			chunks++;
			text += c.choices[0]?.delta?.content ?? "";
			usage = c.usage ?? usage;
		}
		return { text, usage, chunks };
	},
	async accumulate() {
		const seen = [];
		const run = client.chat.completions.stream({ model: "m", messages });
		run.on("content", (delta) => seen.push(delta));
		const done = await run.finalChatCompletion();
		return { seen, text: done.choices[0].message.content, role: done.choices[0].message.role, finish: done.choices[0].finish_reason };
	},
	async tools() {
		const run = client.chat.completions.stream({ model: "m", messages, tools });
		const streamed = (await run.finalChatCompletion()).choices[0];
		const plain = (await client.chat.completions.create({ model: "m", messages, tools })).choices[0];
		return [streamed, plain].map((c) => ({ finish: c.finish_reason, calls: c.message.tool_calls }));
	},
	async errors() {
		return {
			model: await failure(client.chat.completions.create({ model: "nobody", messages })),
			member: await failure(client.chat.completions.create({ model: "m", messages, temperature: "hot" })),
			route: await failure(client.get("/nothing")),
		};
	},
	async fails() {
		return failure(client.chat.completions.create({ model: "m", messages }));
	},
	async breaks() {
		return failure((async () => {
			for await (const _ of await client.chat.completions.create({ model: "m", messages, stream: true }));
		})());
	},
	async leave() {
		const stream = await client.chat.completions.create({ model: "m", messages, stream: true });
		for await (const c of stream) {
			if (c.choices[0]?.delta?.content) break;
		}
		console.log(JSON.stringify({ left: true }));
		await new Promise((resume) => process.stdin.on("end", resume).resume());
	},
	async abort() {
		const control = new AbortController();
		const asked = client.chat.completions.create({ model: "m", messages }, { signal: control.signal });
		process.stdin.once("data", () => control.abort());
		const seen = await failure(asked);
		process.stdin.destroy();
		return seen;
	},
};

const result = await scenarios[scenario]();
if (result) console.log(JSON.stringify(result));
