using System.Globalization;
using System.Text;
using MicroVm.Agent.Boot;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>What the agent and the guest's kernel did, and when, for the trace of a start.</summary>
/// <param name="trace">The agent's steps.</param>
internal sealed unsafe class GuestTrace(StepRecorder trace)
{
    private const int MostLines = 96;
    private const int LongestLine = 80;
    private const int RecordBytes = 8192;

    // The lane of the kernel.
    private const int KernelLane = -1;

    internal void Read(TraceRequest request, TtrpcCall call)
    {
        TraceResponse response = new();
        if (!request.ClockOnly)
        {
            foreach (RecordedStep step in trace.Steps)
            {
                response.Steps.Add(new TraceStep { Name = step.Name, Begin = step.Begin, End = step.End, Thread = step.Thread });
            }

            AddKernelLines(response);
        }

        response.Now = StepRecorder.Now;
        call.Complete(response);
    }

    /// <summary>The kernel's messages as marks.</summary>
    private static void AddKernelLines(TraceResponse response)
    {
        // The kernel stamps its messages by another clock; a message of our own shows how far the two are apart.
        string mark = string.Create(CultureInfo.InvariantCulture, $"microvm-agent: the trace is read at {StepRecorder.Now}");
        List<KernelMessage> lines;
        long marked = StepRecorder.Now;
        try
        {
            using SafeFd kmsg = GuestDeviceNodes.Open("/dev/kmsg", 1, 11, Libc.O_RDWR | Libc.O_NONBLOCK);
            WriteDebug(kmsg, mark);
            lines = ReadLines(kmsg);
        }
        catch (LinuxException e)
        {
            Log.Warn($"the kernel's messages are not in the trace: {e.Message}");
            return;
        }

        int own = lines.FindLastIndex(l => l.Text == mark);
        if (own < 0)
        {
            return;
        }

        long offset = marked - lines[own].Time;
        foreach ((string text, long time) in lines.Take(own).Take(MostLines))
        {
            long at = Math.Max(0, time + offset);
            response.Steps.Add(new TraceStep { Name = text[..Math.Min(text.Length, LongestLine)], Begin = at, End = at, Thread = KernelLane });
        }
    }

    private static void WriteDebug(SafeFd kmsg, string text)
    {
        // KERN_DEBUG: not for the console. A message without its newline may be continued, and is not read before that.
        byte[] line = Encoding.UTF8.GetBytes($"<7>{text}\n");
        fixed (byte* p = line)
        {
            Check.Result(Libc.write(kmsg.Value, p, (nuint)line.Length), "write", "/dev/kmsg");
        }
    }

    private static List<KernelMessage> ReadLines(SafeFd kmsg)
    {
        List<KernelMessage> lines = [];
        byte[] record = new byte[RecordBytes];
        while (true)
        {
            nint n;
            fixed (byte* p = record)
            {
                n = Libc.read(kmsg.Value, p, RecordBytes);
            }

            if (n > 0 && KernelMessage.Parse(Encoding.UTF8.GetString(record, 0, (int)n)) is { } line)
            {
                lines.Add(line);
            }
            else if (n <= 0 && Check.LastErrno is not (Errno.EINTR or Errno.EPIPE))
            {
                // EPIPE: messages were overwritten before they were read.
                return lines;
            }
        }
    }
}
