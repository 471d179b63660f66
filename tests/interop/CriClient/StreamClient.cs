using System.Net.WebSockets;
using System.Text.Json;

namespace MicroVm.Interop.Cri;

/// <summary>
/// The streams of Exec, Attach and PortForward over a WebSocket (Kubernetes' v4.channel.k8s.io): each message begins with the number of its channel:
/// 0 input, 1 output, 2 error output, 3 how it ended, 4 the terminal's size; for PortForward 0 both ways, 1 errors.
/// </summary>
internal static class StreamClient
{
    private const string Protocol = "v4.channel.k8s.io";
    private const byte Input = 0, Error = 2, End = 3, Size = 4;

    /// <summary>Carries standard streams to and from it until its end. A line of input that begins with 0x1f is a size, "WIDTH HEIGHT".</summary>
    /// <returns>The exit status that it tells; 0 where it tells none.</returns>
    internal static async Task<int> RunAsync(Uri url)
    {
        bool forwards = url.AbsolutePath.StartsWith("/portforward", StringComparison.Ordinal);
        using ClientWebSocket socket = new();
        socket.Options.AddSubProtocol(Protocol);
        await socket.ConnectAsync(new UriBuilder(url) { Scheme = "ws" }.Uri, CancellationToken.None).ConfigureAwait(false);
        _ = Task.Run(() => CopyInputAsync(socket));
        Stream[] outputs = [Console.OpenStandardOutput(), Console.OpenStandardError()];
        byte[] buffer = new byte[64 << 10];
        int skip = forwards ? 4 : 0;
        while (true)
        {
            int length = 0;
            ValueWebSocketReceiveResult received;
            do
            {
                try
                {
                    received = await socket.ReceiveAsync(buffer.AsMemory(length), CancellationToken.None).ConfigureAwait(false);
                }
                catch (WebSocketException)
                {
                    // containerd ends the connection without a word.
                    return 0;
                }

                length += received.Count;
            }
            while (!received.EndOfMessage);
            if (received.MessageType == WebSocketMessageType.Close)
            {
                return 0;
            }

            if (length == 0)
            {
                continue;
            }

            ReadOnlyMemory<byte> body = buffer.AsMemory(1, length - 1);
            if (skip > 0 && body.Length == 2)
            {
                // Each channel of PortForward begins with the port's number.
                skip -= 2;
                continue;
            }

            if (!forwards && buffer[0] == End)
            {
                return StatusOf(body.Span);
            }

            Stream output = outputs[forwards ? buffer[0] & 1 : buffer[0] == Error ? 1 : 0];
            await output.WriteAsync(body).ConfigureAwait(false);
            await output.FlushAsync().ConfigureAwait(false);
        }
    }

    private static async Task CopyInputAsync(ClientWebSocket socket)
    {
        const byte sizeMark = 0x1f;
        using Stream input = Console.OpenStandardInput();
        byte[] buffer = new byte[4096];
        int n;
        while ((n = await input.ReadAsync(buffer.AsMemory(1)).ConfigureAwait(false)) > 0)
        {
            if (buffer[1] == sizeMark)
            {
                string[] size = System.Text.Encoding.ASCII.GetString(buffer, 2, n - 1).Trim().Split(' ');
                byte[] json = System.Text.Encoding.ASCII.GetBytes($$""".{"Width":{{size[0]}},"Height":{{size[1]}}}""");
                json[0] = Size;
                await socket.SendAsync(json, WebSocketMessageType.Binary, true, CancellationToken.None).ConfigureAwait(false);
                continue;
            }

            buffer[0] = Input;
            await socket.SendAsync(buffer.AsMemory(0, n + 1), WebSocketMessageType.Binary, true, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Of a metav1.Status: the cause ExitCode of a failure.</summary>
    private static int StatusOf(ReadOnlySpan<byte> json)
    {
        using JsonDocument document = JsonDocument.Parse(json.ToArray());
        if (document.RootElement.GetProperty("status").GetString() == "Success")
        {
            return 0;
        }

        foreach (JsonElement cause in document.RootElement.TryGetProperty("details", out JsonElement details) && details.TryGetProperty("causes", out JsonElement causes) ? causes.EnumerateArray() : [])
        {
            if (cause.GetProperty("reason").GetString() == "ExitCode")
            {
                return int.Parse(cause.GetProperty("message").GetString()!, System.Globalization.CultureInfo.InvariantCulture);
            }
        }

        Console.Error.WriteLine(document.RootElement.ToString());
        return 255;
    }
}
