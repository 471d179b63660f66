using System.Globalization;

namespace MicroVm.Agent.Boot;

/// <summary>A message of the kernel, as /dev/kmsg has it (Documentation/ABI/testing/dev-kmsg).</summary>
/// <param name="Text">Its first line.</param>
/// <param name="Time">Nanoseconds of the kernel's own clock, local_clock().</param>
public readonly record struct KernelMessage(string Text, long Time)
{
    private const long NanosecondsOfMicrosecond = 1000;

    /// <summary>Reads a record, <c>priority,sequence,microseconds,flags;text</c>; null where it is none.</summary>
    public static KernelMessage? Parse(string record)
    {
        ArgumentNullException.ThrowIfNull(record);
        int text = record.IndexOf(';', StringComparison.Ordinal);
        string[] fields = text < 0 ? [] : record[..text].Split(',');
        if (fields.Length < 3 || !long.TryParse(fields[2], NumberStyles.None, CultureInfo.InvariantCulture, out long microseconds) || microseconds > long.MaxValue / NanosecondsOfMicrosecond)
        {
            return null;
        }

        int end = record.IndexOf('\n', text);
        return new KernelMessage(record[(text + 1)..(end < 0 ? record.Length : end)], microseconds * NanosecondsOfMicrosecond);
    }
}
