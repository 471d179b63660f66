using Grpc.Core;

namespace MicroVm.Interop.Cri;

/// <summary>
/// A client of the Container Runtime Interface for the cases: each line of standard input is a call, a number, a method and a request as JSON
/// with spaces between; each line of standard output is an answer, with the call's number, as JSON or "error CODE MESSAGE". Calls run side
/// by side. With "stream URL" it carries the streams of one Exec, Attach or PortForward instead.
/// </summary>
internal static class Program
{
    private static async Task<int> Main(string[] args)
    {
        switch (args)
        {
            case ["stream", var url]:
                return await StreamClient.RunAsync(new Uri(url)).ConfigureAwait(false);
            case [var socket]:
                await ServeAsync(socket).ConfigureAwait(false);
                return 0;
            default:
                Console.Error.WriteLine("usage: CriClient SOCKET | CriClient stream URL");
                return 2;
        }
    }

    private static async Task ServeAsync(string socket)
    {
        using RuntimeClient client = new(socket);
        List<Task> calls = [];
        while (Console.ReadLine() is { } line)
        {
            string[] words = line.Split(' ', 3);
            calls.Add(AnswerAsync(client, words[0], words[1], words[2]));
        }

        await Task.WhenAll(calls).ConfigureAwait(false);
    }

    private static async Task AnswerAsync(RuntimeClient client, string number, string method, string request)
    {
        string answer;
        try
        {
            answer = await client.CallAsync(method, request).ConfigureAwait(false);
        }
        catch (RpcException e)
        {
            answer = $"error {e.StatusCode} {e.Status.Detail.ReplaceLineEndings(" ")}";
        }

        Console.WriteLine($"{number} {answer}");
    }
}
