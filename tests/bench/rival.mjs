// What a panel's node does: for each user one RemoveUser, then AddUser, one call at a time.
import { createInterface } from 'node:readline';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';

const { XtlsApi } = createRequire(process.cwd() + '/')('@remnawave/xtls-sdk');

async function steps(host, port, tag, number) {
  const api = new XtlsApi(host, port);
  const users = Array.from({ length: number }, (_, index) => `rival-${index}@elsewhere`);
  const credentials = users.map(() => randomUUID());
  await api.handler.getInboundUsersCount(tag);
  const clock = () => [performance.now(), process.cpuUsage()];
  const since = ([began, before]) => {
    const cpu = process.cpuUsage(before);
    return { seconds: (performance.now() - began) / 1000, cpu: (cpu.user + cpu.system) / 1e6 };
  };
  let begin = clock();
  for (const [index, username] of users.entries()) {
    await api.handler.removeUser(tag, username);
    await api.handler.addVlessUser({ tag, username, uuid: credentials[index], flow: '', level: 0 });
  }
  const add = since(begin);
  const there = (await api.handler.getInboundUsersCount(tag)).data;
  begin = clock();
  for (const username of users) await api.handler.removeUser(tag, username);
  const remove = since(begin);
  api.channel.close();
  return { add, remove, there };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { host, port, tag, number } = JSON.parse(line);
  console.log(JSON.stringify(await steps(host, port, tag, number)));
}
