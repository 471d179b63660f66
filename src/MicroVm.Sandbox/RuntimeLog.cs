using System.Buffers;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox;

/// <summary>Severity of a log line, as runc names them.</summary>
public enum LogLevel
{
    /// <summary>Only with <c>--debug</c>.</summary>
    Debug,

    /// <summary>Progress.</summary>
    Info,

    /// <summary>Something was ignored or went not quite as asked.</summary>
    Warning,

    /// <summary>The command failed.</summary>
    Error,
}

/// <summary>
/// The runtime's log in runc's formats: JSON lines or <c>key=value</c> text, appended to a file or written to standard
/// error. Any thread may write. A log that cannot be written is no reason to fail.
/// </summary>
public sealed class RuntimeLog : IDisposable
{
    private readonly Lock _lock = new();
    private readonly SafeFd _fd;
    private readonly bool _json;
    private readonly bool _debug;
    private readonly bool _terminal;
    private readonly long _start = Environment.TickCount64;

    private RuntimeLog(SafeFd fd, bool json, bool debug, bool toStandardError)
    {
        _fd = fd;
        _json = json;
        _debug = debug;
        IsStandardError = toStandardError;
        _terminal = toStandardError && Terminal.Is(fd);
    }

    /// <summary>Whether lines go to standard error.</summary>
    public bool IsStandardError { get; }

    /// <summary>Opens the log.</summary>
    /// <param name="file">Appended to; standard error when null.</param>
    /// <param name="json">JSON lines instead of text.</param>
    /// <param name="debug">Keep debug lines.</param>
    /// <exception cref="LinuxException">The file cannot be opened.</exception>
    public static RuntimeLog Open(string? file, bool json, bool debug)
    {
        const int Flags = Libc.O_WRONLY | Libc.O_CREAT | Libc.O_APPEND | Libc.O_CLOEXEC;
        SafeFd fd = file is null
            ? SafeFd.From(Libc.fcntl(2, Libc.F_DUPFD_CLOEXEC, 3), "fcntl(F_DUPFD_CLOEXEC)", "standard error")
            : SafeFd.From(Libc.open(file, Flags, 0b110_100_100), "open log file", file);
        return new RuntimeLog(fd, json, debug, file is null);
    }

    /// <summary>Writes a line.</summary>
    public void Write(LogLevel level, string message)
    {
        if (level == LogLevel.Debug && !_debug)
        {
            return;
        }

        byte[] line = _json ? Json(level, message) : Encoding.UTF8.GetBytes(_terminal ? Colored(level, message) : Text(level, message));
        lock (_lock)
        {
            try
            {
                HostFile.WriteAll(_fd, line, "log");
            }
            catch (LinuxException)
            {
                // A full disk or a closed pipe: the exit status still tells.
            }
        }
    }

    /// <summary>A line of a command's progress: what was done, and when, since <paramref name="began"/> in <see cref="Stopwatch"/> ticks.</summary>
    internal static string Stamped(string text, long began) =>
        string.Create(CultureInfo.InvariantCulture, $"{text} (+{Stopwatch.GetElapsedTime(began).TotalMilliseconds:0.00} ms)");

    /// <inheritdoc/>
    public void Dispose() => _fd.Dispose();

    private static string Name(LogLevel level) => level switch
    {
        LogLevel.Debug => "debug",
        LogLevel.Info => "info",
        LogLevel.Warning => "warning",
        _ => "error",
    };

    private static string Now() => DateTimeOffset.Now.ToString("yyyy-MM-dd'T'HH:mm:ssK", CultureInfo.InvariantCulture).Replace("+00:00", "Z", StringComparison.Ordinal);

    private static byte[] Json(LogLevel level, string message)
    {
        ArrayBufferWriter<byte> buffer = new();
        using (Utf8JsonWriter writer = new(buffer, new JsonWriterOptions { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            writer.WriteStartObject();
            writer.WriteString("level"u8, Name(level));
            writer.WriteString("msg"u8, message);
            writer.WriteString("time"u8, Now());
            writer.WriteEndObject();
        }

        buffer.Write("\n"u8);
        return buffer.WrittenSpan.ToArray();
    }

    private static string Text(LogLevel level, string message) => $"time=\"{Now()}\" level={Name(level)} msg={Quote(message)}\n";

    private string Colored(LogLevel level, string message)
    {
        (string name, int color) = level switch
        {
            LogLevel.Debug => ("DEBU", 37),
            LogLevel.Info => ("INFO", 36),
            LogLevel.Warning => ("WARN", 33),
            _ => ("ERRO", 31),
        };
        return string.Create(
            CultureInfo.InvariantCulture, $"\u001b[{color}m{name}\u001b[0m[{(Environment.TickCount64 - _start) / 1000:0000}] {Printable(message)} \n");
    }

    /// <summary>A message as a terminal may show it: it may hold what a guest wrote, which must not drive the reader's terminal.</summary>
    internal static string Printable(string message) =>
        string.Create(message.Length, message, (printable, text) =>
        {
            for (int i = 0; i < text.Length; i++)
            {
                printable[i] = char.IsControl(text[i]) && text[i] is not ('\n' or '\t') ? '?' : text[i];
            }
        });

    private static string Quote(string message)
    {
        StringBuilder quoted = new("\"");
        foreach (char c in message)
        {
            _ = c switch
            {
                '"' => quoted.Append("\\\""),
                '\\' => quoted.Append("\\\\"),
                '\n' => quoted.Append("\\n"),
                '\r' => quoted.Append("\\r"),
                '\t' => quoted.Append("\\t"),
                < ' ' or '\u007f' => quoted.Append(CultureInfo.InvariantCulture, $"\\x{(int)c:x2}"),
                _ => quoted.Append(c),
            };
        }

        return quoted.Append('"').ToString();
    }
}
