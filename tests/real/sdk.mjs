// sdk.mjs SDK_FOLDER BASE_URL MODEL SCENARIO: one use of the official OpenAI client; prints {value} or {error} as JSON. Called by sdk.py.
import { createRequire } from "node:module";

const [folder, baseURL, model, scenario] = process.argv.slice(2);
const { OpenAI } = createRequire(`${folder}/`)("openai");
const client = new OpenAI({ baseURL, apiKey: process.env.TEST_KEY || "anything", maxRetries: 0 });
const tool = { type: "function", function: { name: "get_weather", description: "Weather of a city",
	parameters: { type: "object", properties: { city: { type: "string", maxLength: 12 } }, required: ["city"] } } };
const chat = { model, messages: [{ role: "user", content: "hello there" }], max_tokens: 24, seed: 1, temperature: 0,
	...JSON.parse(process.env.TEST_EXTRA || "{}") };
const calling = { ...chat, tools: [tool], tool_choice: "required", max_tokens: 200, seed: 3 };
const calls = (choice) => [choice.finish_reason, choice.message.tool_calls.map((c) =>
	[c.type, c.function.name, JSON.parse(c.function.arguments)])];

const scenarios = {
	async list() {
		const ids = [];
		for await (const m of client.models.list()) ids.push(m.id);
		return ids.length > 0 && (await client.models.retrieve(ids[0])).id === ids[0];
	},
	async create() {
		const reply = await client.chat.completions.create(chat);
		return [reply.choices[0].message.content, reply.choices[0].finish_reason, reply.usage.total_tokens];
	},
	async iterate() {
		let text = "", usage = null, finish = null;
		for await (const c of await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } })) {
			text += c.choices[0]?.delta?.content ?? "";
			finish = c.choices[0]?.finish_reason ?? finish;
			usage = c.usage ?? usage;
		}
		return [text, finish, usage.total_tokens];
	},
	async stream() {
		let seen = "";
		const run = client.chat.completions.stream({ ...chat, stream_options: { include_usage: true } });
		run.on("content", (delta) => { seen += delta; });
		const done = await run.finalChatCompletion();
		const { message, finish_reason } = done.choices[0];
		if (seen !== message.content) throw new Error("events and message differ");
		return [message.role, message.content, finish_reason, (await run.totalUsage()).total_tokens];
	},
	async tools() {
		return calls((await client.chat.completions.create(calling)).choices[0]);
	},
	async stream_tools() {
		let done = 0;
		const run = client.chat.completions.stream(calling);
		run.on("tool_calls.function.arguments.done", () => { done++; });
		const seen = calls((await run.finalChatCompletion()).choices[0]);
		if (done !== seen[1].length) throw new Error(`${done} calls reported done`);
		return seen;
	},
	async run_tools() {                         // the client's own loop: call, result, answer
		let ran = 0;
		const run = client.chat.completions.runTools({ ...calling, stream: true,
			tools: [{ type: "function", function: { ...tool.function, parse: JSON.parse, function: () => { ran++; return "7 degrees"; } } }] },
		{ maxChatCompletions: 2 });
		await run.done().catch((e) => { if (ran === 0) throw e; });
		return ran;
	},
	async abort() {
		const control = new AbortController();
		const stream = await client.chat.completions.create({ ...chat, stream: true, max_tokens: 20000, ignore_eos: true },
			{ signal: control.signal });
		let seen = 0;
		for await (const _ of stream) if (++seen === 3) control.abort();
		return seen;
	},
	async errors() {
		try {
			await client.chat.completions.create({ ...chat, model: "no-such-model" });
		} catch (e) {
			return [e.constructor.name, e.status, e.code, e.param];
		}
		return "taken";
	},
};

try {
	console.log(JSON.stringify({ value: await scenarios[scenario]() }));
} catch (e) {
	console.log(JSON.stringify({ error: `${e.constructor.name}: ${e.message}` }));
}
