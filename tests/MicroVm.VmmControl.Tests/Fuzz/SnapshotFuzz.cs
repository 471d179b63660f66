using System.Buffers.Binary;
using System.IO.Hashing;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.VmmControl.Snapshots;
using MicroVm.VmmControl.Tests.Snapshots;
using Xunit;

namespace MicroVm.VmmControl.Tests.Fuzz;

/// <summary>Spoiled state files, every other one with checksums that are right again: they are read whole, or refused with one sentence.</summary>
public sealed class SnapshotFuzz
{
    private const int Head = 32, Entry = 64, MostSections = 256;

    [Fact]
    public void State_files() => Fuzzing.Run("snapshot-file", random =>
    {
        byte[] file = Spoiling.Bytes(GoldenSnapshot.Make(), random, first: random.Next(2) == 0 ? Head + (4 * Entry) : int.MaxValue);
        if (random.Next(2) == 0)
        {
            Correct(file);
        }

        try
        {
            SnapshotFile snapshot = SnapshotFile.Parse(file);
            Assert.Equal(file.Length, Head + snapshot.Sections.Sum(s => Entry + s.Content.Length));
            foreach (SnapshotSection section in snapshot.Sections)
            {
                Read(snapshot.Open(section.Name, section.Version), random);
            }
        }
        catch (SnapshotException e)
        {
            Assert.DoesNotContain(e.Message, char.IsControl);
        }
    });

    private static void Read(StateReader reader, Random random)
    {
        for (int n = random.Next(8); n > 0; n--)
        {
            switch (random.Next(5))
            {
                case 0:
                    _ = reader.Read<ulong>();
                    break;
                case 1:
                    _ = reader.ReadFlag();
                    break;
                case 2:
                    _ = reader.ReadBytes(random.Next(200));
                    break;
                case 3:
                    _ = reader.ReadText(int.MaxValue);
                    break;
                default:
                    _ = reader.ReadCount(5, "things");
                    break;
            }
        }

        reader.End();
    }

    /// <summary>Makes the checksums of the table and of the sections that are within the file right.</summary>
    private static void Correct(byte[] file)
    {
        if (file.Length < Head)
        {
            return;
        }

        int count = (int)Math.Min(BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(12)), MostSections);
        int table = Math.Min(count * Entry, file.Length - Head);
        ulong position = (ulong)(Head + table);
        for (int entry = Head; entry + Entry <= Head + table; entry += Entry)
        {
            ulong length = BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(entry + 40));
            if (length > (ulong)file.Length - position)
            {
                break;
            }

            BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(entry + 48), XxHash3.HashToUInt64(file.AsSpan((int)position, (int)length)));
            position += length;
        }

        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(16), XxHash3.HashToUInt64(file.AsSpan(Head, table)));
    }
}
